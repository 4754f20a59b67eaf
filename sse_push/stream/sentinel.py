"""The primary that Sentinels watch: they are asked where it is before each connection to it.

Knows one question to a Sentinel. Does not know when a primary has changed: what is added elsewhere,
or refused by a replica, has ``probe`` and ``append`` connect anew.

https://redis.io/docs/latest/develop/reference/sentinel-clients/
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar, cast
from urllib.parse import unquote, urlsplit

from sse_push.stream.address import Address
from sse_push.stream.failures import RedisConnectionError, RedisError
from sse_push.stream.opening import connect
from sse_push.stream.replies import ErrorReply

SENTINEL_LIMIT_S = 1.0
"""How long one Sentinel may take to answer before the next one is asked."""

NO_PRIMARY = "expected a Sentinel that names the primary"
"""How the text of the error begins that all Sentinels together cause."""

_MARK = "+sentinel://"
_PORT = 26379

P = TypeVar("P", bound=asyncio.Protocol)


class Login(NamedTuple):
    """As whom we come to the Sentinels, which have users and passwords of their own."""

    user: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"Login(user={self.user!r})"


@dataclass(frozen=True, slots=True)
class PrimaryAddress(Address):
    """The primary of a service, wherever it is now; as whom we come to it, and how, stays.

    With TLS the Sentinels are asked by TLS as well.
    """

    service: str = ""
    sentinels: tuple[Address, ...] = field(default=())

    def __str__(self) -> str:
        return f"the primary of {self.service}"

    @property
    def needs_primary(self) -> bool:
        """Yes: a Sentinel may name a server that is no primary any more."""
        return True

    async def reach(self, protocol: Callable[[], P], *, within_s: float) -> P:
        """Ask the Sentinels, connect to the server that they name, and return its protocol.

        Raises:
            RedisConnectionError: no Sentinel names a primary, or the primary can't be reached, or
                not within ``within_s``.
        """
        try:
            async with asyncio.timeout(within_s):
                sentinel, primary = await self._find()
        except TimeoutError as exc:
            text = f"{NO_PRIMARY} of {self.service} within {within_s:g} s, got none: timed out"
            raise RedisConnectionError(text) from exc
        try:
            return await primary.reach(protocol, within_s=within_s)
        except RedisConnectionError as exc:
            named = f"{exc} ({primary} is what the Sentinel {sentinel} names)"
            raise RedisConnectionError(named) from exc

    async def _find(self) -> tuple[Address, Address]:
        """Return the first Sentinel that knows the primary, and the primary."""
        failures = []
        for sentinel in self.sentinels:
            try:
                return sentinel, await self._named_by(sentinel)
            except TimeoutError:
                failures.append(f"{sentinel}: no answer within {SENTINEL_LIMIT_S:g} s")
            except (RedisError, OSError) as exc:
                failures.append(f"{sentinel}: {exc}")
        text = f"{NO_PRIMARY} of {self.service}, got none: {'; '.join(failures)}"
        raise RedisConnectionError(text)

    async def _named_by(self, sentinel: Address) -> Address:
        question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
        async with asyncio.timeout(SENTINEL_LIMIT_S):
            # RESP2, whose greeting is the same for Sentinels of all versions.
            with closing(await connect(sentinel, question, protocol=2)) as connection:
                reply = await connection.read()
        if isinstance(reply, ErrorReply):
            raise RedisError(str(reply))
        if reply is None:
            raise RedisError(f"it knows no service {self.service}")
        host, port = cast("list[bytes]", reply)
        return Address(
            host=host.decode(),
            port=int(port),
            db=self.db,
            user=self.user,
            password=self.password,
            connect_timeout_s=self.connect_timeout_s,
            tls=self.tls,
        )


def parse_address(url: str, login: Login = Login()) -> Address:  # noqa: B008 (it never changes)
    """Return the address of a URL that ``settings`` has accepted, of one server or of Sentinels."""
    scheme, mark, _ = url.partition(_MARK)
    if not mark:
        return Address.parse(url)
    parts = urlsplit(url)
    user_and_password, at, hosts = parts.netloc.rpartition("@")
    ours = Address.parse(f"{scheme}://{user_and_password}{at}sentinel?{parts.query}")
    return PrimaryAddress(
        db=ours.db,
        user=ours.user,
        password=ours.password,
        connect_timeout_s=ours.connect_timeout_s,
        tls=ours.tls,
        service=unquote(parts.path[1:]),
        sentinels=tuple(_sentinel(host, ours, login) for host in hosts.split(",")),
    )


def _sentinel(host: str, ours: Address, login: Login) -> Address:
    parts = urlsplit(f"//{host}")
    assert parts.hostname is not None, "settings refuse a URL without hosts"
    return replace(
        ours,
        host=parts.hostname,
        port=parts.port or _PORT,
        db=0,
        user=login.user,
        password=login.password,
    )
