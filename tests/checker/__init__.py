"""A second judge of what browsers heard: written from the documentation, sharing no code.

The service could be wrong, and the harness wrong in the same way, since both were written by one
house and share modules. So this package imports nothing of ``sse_push`` and nothing of the other
tests (``tests/unit/test_layout.py`` sees to that): bytes from sockets, parsers written from RFC
9112 and WHATWG, and the promises of ``sse_push/docs/operations.md`` as rules over two histories.

================  ============================================================================
``history``       the two histories: what a backend was answered, what each browser received
``response``      one HTTP/1.1 response, from its bytes (RFC 9112)
``events``        the events of a ``text/event-stream``, from its bytes (WHATWG)
``browser``       an EventSource, which writes down what it receives
``backend``       a backend that notifies, and writes down what it is answered
``coverage``      which refresh stands for which notification: promises 1, 2, 4, and ``data``
``connections``   what must hold on each connection: promises 3, 6, 7, 8, 9
``judge``         all rules, and what may be said of a run: the terms, and the verdict
================  ============================================================================

``python -m tests.checker --help`` says how to run it.
"""
