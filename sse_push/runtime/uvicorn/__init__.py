"""All that is known of uvicorn: no other package imports it.

``protocol``: requests that are too large, or too slow, are refused.
"""

from sse_push.runtime.uvicorn.protocol import REFUSALS, REFUSED_KEY, BoundedProtocol, Requests

__all__ = ["REFUSALS", "REFUSED_KEY", "BoundedProtocol", "Requests"]
