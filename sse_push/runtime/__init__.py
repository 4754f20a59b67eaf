"""The process that serves: how it starts, runs and ends.

``supervisor`` is the process above the workers; ``supervision`` decides which there are
(``worker``, ``backoff``), and ``link`` is a worker's way up. ``service_manager`` is the way further
up, to systemd, which is told the ``standing`` of the service. ``uvicorn`` is the server, and the
only package that knows uvicorn. ``process`` ends a worker in order, whatever the reason.
``run_folder`` is what workers share: the state of each (``readiness``) and its numbers
(``metrics_folder``). ``logs`` shows what happens, and ``refusals`` what was refused. ``embedded``
runs a valkey-server for a first try. ``timer_wheel`` has many deadlines on one timer.

``variables`` has the names of what a process is given beside its flags; ``env_file`` and
``secret_files`` read the files of that. ``address`` says why a service can't listen somewhere, and
a ``finding`` is one result of an examination.

Does not know what is served.
"""
