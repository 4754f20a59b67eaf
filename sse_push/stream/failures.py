"""How Redis fails us: the kinds of errors that a connection to it ends in, or never begins with.

Knows no reason; each text says it where the error is raised.
"""

from __future__ import annotations


class RedisError(Exception):
    """Redis can't be used as it must be; every other error here is one of this kind."""


class RedisConnectionError(RedisError):
    """A connection is lost, or can't be made."""
