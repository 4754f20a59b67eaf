"""uvicorn: the one package that imports it, and knows its inside.

``serving`` runs it. ``protocol`` refuses requests that are too large or too slow, which uvicorn
does not. ``takeover`` hands the transport of a connection to whoever can write an event stream
faster than by ``send``. uvicorn is pinned below the next minor version, since the last two depend
on more than its public interface; tests/unit/runtime/uvicorn fails if that has changed.
"""

from sse_push.runtime.uvicorn.protocol import REFUSED_KEY, Requests
from sse_push.runtime.uvicorn.serving import force_exit, run_server
from sse_push.runtime.uvicorn.takeover import SEND_SCOPE_KEY, take_over

__all__ = [
    "REFUSED_KEY",
    "SEND_SCOPE_KEY",
    "Requests",
    "force_exit",
    "run_server",
    "take_over",
]
