"""Tell every open browser of a merchant that its data has changed, by Server-Sent Events.

This is the map. The first line of each package and module says what its one question is.

================  ===============================================================================
``access``        who may notify, who may listen to which merchant, how often, and is there room
``hub``           what is pending for which connection of this process, and when it is written
``event_stream``  the bytes of one connection: its beginning, what it has missed, its end
``stream``        Redis: adding entries, and following which merchants' streams change
``http``          the endpoints, their answers, and the parts of a process (``http.service``)
``runtime``       the supervisor and its workers, the log, uvicorn, and the embedded Redis
``settings``      every setting: name, unit, default, range; only this module reads them
``errors``        why a request is refused (``errors.Refusal``), why a connection ends
                  (``errors.EndReason``)
``notification``  the values on the way: notification, entry, entry ID, change
``metrics``       the numbers for Prometheus
``server``        sockets, workers, and the order of start and stop; above it ``cli``, ``__main__``
``asgi``          the service for an ASGI server of your own
``doctor``        what is wrong on the way from a browser to a service, seen from outside
``sse_client``    what a browser's EventSource does, for the command line and ``demo``, a cinema
================  ===============================================================================

*A notification*: ``http.endpoints.notify`` asks ``access``, and ``stream.append`` adds an entry to
the merchant's stream in Redis. Redis announces the change to each process; ``stream.follow`` reads
the entry, as ``stream.tail`` decides, and ``hub.fan_out`` offers it as one frame to each connection
of the merchant, which ``event_stream`` writes.

*A connection*: ``http.endpoints.events`` asks ``access`` for a grant and a place. ``event_stream``
answers, subscribes to ``hub``, and sends what was missed since the last event ID. A browser that
reads slowly is BLOCKED (``hub.State``): its pending refreshes merge, and a browser that takes no
bytes for ``send_timeout_s`` is ended as STALLED.

*To add* a reason to end a connection: a member of ``errors.EndReason``, and a row in
``docs/reference.md``. A setting: a field of ``settings.Settings``, the part that takes its value,
in ``http.service``, and a row in ``docs/reference.md``. Who may listen is decided in
``access.gate``. ``docs/contributing.md`` has the files of other changes.
"""

__version__ = "0.1.0"
