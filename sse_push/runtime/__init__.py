"""The process that serves: how it starts, runs and ends.

``uvicorn`` is the server, and the only package that knows uvicorn. ``process`` ends the process in
order, whatever the reason. ``logs`` and ``readiness`` show the state of a worker. ``embedded`` runs
a valkey-server for a first try. ``timer_wheel`` has many deadlines on one timer.

Does not know what is served.
"""
