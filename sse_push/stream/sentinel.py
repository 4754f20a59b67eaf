"""The primary that Sentinels watch: they are asked where it is before each connection to it.

Knows one question to a Sentinel, and which of several answers counts. Does not know when a primary
has changed: what is added elsewhere, or refused by a replica, has ``probe`` and ``append`` connect
anew.

https://redis.io/docs/latest/develop/reference/sentinel-clients/
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

from sse_push.stream.address import Address, Place
from sse_push.stream.failures import RedisConnectionError, RedisError
from sse_push.stream.opening import connect
from sse_push.stream.replies import ErrorReply

SENTINEL_LIMIT_S = 1.0
"""How long the Sentinels, all asked at once, may take to answer."""

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


class Answer(NamedTuple):
    """What one Sentinel said: a place, or, if it named none, why not."""

    sentinel: Address
    place: Place | None
    failure: str = ""


@dataclass(frozen=True, slots=True)
class PrimaryAddress(Address):
    """The primary of a service, wherever it is now; as whom we come to it, and how, stays.

    More than half of the Sentinels elect a primary, so a server that more than half of them name is
    taken at once. A Sentinel that was cut off names the primary from before, and is outvoted. With
    TLS the Sentinels are asked by TLS as well.
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
                place = await self._find()
        except TimeoutError as exc:
            text = f"{NO_PRIMARY} of {self.service} within {within_s:g} s, got none: timed out"
            raise RedisConnectionError(text) from exc
        try:
            return await self._at(place).reach(protocol, within_s=within_s)
        except RedisConnectionError as exc:
            raise RedisConnectionError(f"{exc} ({place} is what Sentinels name)") from exc

    async def answers(self) -> list[Answer]:
        """Ask all Sentinels, and return what each of them said, in their order."""
        return await asyncio.gather(*(self._ask(sentinel) for sentinel in self.sentinels))

    async def _find(self) -> Place:
        """Return the place that most Sentinels name, as soon as more than half of all name it."""
        asked = [asyncio.create_task(self._ask(sentinel)) for sentinel in self.sentinels]
        try:
            named: Counter[Place] = Counter()
            for next_answer in asyncio.as_completed(asked):
                place = (await next_answer).place
                if place is not None:
                    named[place] += 1
                    if 2 * named[place] > len(asked):
                        return place
        finally:
            for task in asked:
                task.cancel()
            await asyncio.wait(asked)
        answers = [task.result() for task in asked]  # all of them: nobody had more than half
        places = [answer.place for answer in answers if answer.place is not None]
        if places:
            return max(places, key=lambda place: named[place])  # the first of equals
        failures = "; ".join(f"{answer.sentinel}: {answer.failure}" for answer in answers)
        raise RedisConnectionError(f"{NO_PRIMARY} of {self.service}, got none: {failures}")

    async def _ask(self, sentinel: Address) -> Answer:
        try:
            return Answer(sentinel, await self._named_by(sentinel))
        except TimeoutError:
            return Answer(sentinel, None, f"no answer within {SENTINEL_LIMIT_S:g} s")
        except (RedisError, OSError) as exc:
            return Answer(sentinel, None, str(exc))

    async def _named_by(self, sentinel: Address) -> Place:
        question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
        async with asyncio.timeout(SENTINEL_LIMIT_S):
            # RESP2, whose greeting is the same for Sentinels of all versions.
            with closing(await connect(sentinel, question, protocol=2)) as connection:
                reply = await connection.read()
        if isinstance(reply, ErrorReply):
            raise RedisError(str(reply))
        if reply is None:
            raise RedisError(f"it knows no service {self.service}")
        match reply:
            case [bytes(host), bytes(port)] if host and port.isdigit():
                return Place(host.decode("utf-8", "replace"), int(port))
        raise RedisError("expected a host and a port, got something else: it is no Sentinel")

    def _at(self, place: Place) -> Address:
        return Address(
            host=place.host,
            port=place.port,
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
