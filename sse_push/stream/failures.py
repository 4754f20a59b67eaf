"""How Redis fails us: the kinds of errors that a connection to it ends in, or never begins with.

They are those of redis-py, which knows them all. Knows no reason; each text says it where the error
is raised.

https://redis.readthedocs.io/en/stable/exceptions.html
"""

from __future__ import annotations

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

__all__ = ["RedisConnectionError", "RedisError"]
