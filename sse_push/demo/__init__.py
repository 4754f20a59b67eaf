"""A small cinema: the backend that a merchant would have, the service, and a crowd, on one port."""

from sse_push.demo.run import run_demo

__all__ = ["run_demo"]
