"""A small cinema: a merchant's backend, its page, the service, and simulated buyers, on one port.

``run`` puts them together. ``cinema`` has the data, ``backend`` the endpoints and the page,
``proxy`` what can be mute before an event stream, ``bodies`` what the page posts to these two,
``crowd`` the simulated buyers, and ``audience`` counts which of them a sale has reached.
"""

from sse_push.demo.run import run_demo

__all__ = ["run_demo"]
