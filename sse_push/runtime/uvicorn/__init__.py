"""uvicorn: the one package that imports uvicorn, and knows its inside.

``serving`` runs uvicorn. ``protocol`` refuses requests that are too large or too slow,
``answering`` answers them in turn, ``waiting`` cuts connections that are held for nothing, and
``unchunked`` answers clients of HTTP/1.0; uvicorn does none of these. ``takeover`` takes a
connection over from uvicorn, so that an event stream is written faster than by ``send``. uvicorn is
pinned below the next minor version, since all of them depend on more than its public interface;
tests/unit/runtime/uvicorn fails if that has changed.
"""

from sse_push.runtime.uvicorn.protocol import REFUSED_KEY, Requests
from sse_push.runtime.uvicorn.serving import run_server
from sse_push.runtime.uvicorn.takeover import SEND_SCOPE_KEY, take_over
from sse_push.runtime.uvicorn.unchunked import UNCHUNKED_HEADER
from sse_push.runtime.uvicorn.waiting import OTHER_CONNECTIONS, Waiting

__all__ = [
    "OTHER_CONNECTIONS",
    "REFUSED_KEY",
    "SEND_SCOPE_KEY",
    "UNCHUNKED_HEADER",
    "Requests",
    "Waiting",
    "run_server",
    "take_over",
]
