"""HTTP: what each request is answered with, and the parts of a process behind the endpoints.

===================  ===========================================================================
``app``              the routes, and the lifespan: in which order a process starts and stops
``endpoints``        one function per endpoint: parse the request, call a part, answer
``parameters``       the query of a request: what is known, what is a slip, what is ignored
``bodies``           bodies are read up to a limit, and decoded from JSON or from a form
``swoole``           the call of the old Swoole server, with ``swoole_compat``
``answers``          the status, headers and JSON of every refusal, and the soft answer
``service``          the parts of a process, built from its settings; its state on the board
``openapi``          the description of the endpoints, made of the routes and ``schemas``
``openapi_answers``  the answers in it, made of the refusals
``schemas``          the JSON that goes in and out
``paths``            the paths of the service
===================  ===========================================================================

A request comes from uvicorn (``runtime.uvicorn``, which has refused it if it is too large or too
slow) to ``app.EventsMiddleware``, and through Starlette's router to an endpoint. An endpoint
refuses a request by raising an error; ``answers`` has the answer to each error.

``GET /events`` is answered with an event stream, or with a refusal; a client that cannot be served
now, and accepts an event stream, gets a soft answer: 200, with a ``goodbye`` as its only event.
EventSource reconnects after a 200, and after no other status. A client that accepts JSON, and no
event stream, polls: it is told at once what it is owed.

Does not know Redis, the wire format, nor how connections are written to. Each caller imports the
module that it needs.
"""
