"""Streams that a node of a cluster does not have: on their way to another node, or there already.

Knows which reply says so, and that nothing is announced of a stream on its way, so that it is read
again and again. Does not know which node has which slots (``cluster``).

**Of a key that its owner does not have, nothing is announced while its slot moves.** Its entries go
to the other node. So each stream of such a slot is expected to move (``expect``) once the owner
says that the slot is on its way, a stream that does not exist yet included.

**A read that is answered ASK arms nothing.** While a slot moves, its old owner answers for the keys
that it still has, and says of the others where to ask (ASK). What is read there is not announced
for as long as it matters: if the move is given up, the stream goes on at its old owner, and what we
had armed elsewhere hears nothing of that. So a stream on its way is read once in ``_AGAIN_S``, at
its owner first, until the owner answers by itself, or the slot has a new owner.

**What the other node was given is out of sight once the move is given up.** Then the owner answers
by itself again, as if nothing had been added meanwhile. That answer counts as announced: if it
finds no stream, or another one than before, that is a resync.

https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#ask-redirection
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import closing
from typing import NamedTuple, Never, Protocol, TypeGuard

from sse_push.stream.address import Address, Place
from sse_push.stream.connection import Connection
from sse_push.stream.contract import ASKING, Command
from sse_push.stream.failures import RedisError
from sse_push.stream.opening import open_connection
from sse_push.stream.parser import ReplyTooLarge
from sse_push.stream.pipeline import OnReply
from sse_push.stream.replies import ErrorReply, is_elsewhere
from sse_push.stream.revocations import RevocationTail
from sse_push.stream.standing import StreamName

_AGAIN_S = 1.0
"""How often a stream on its way is read: a slot with many large keys takes minutes."""

_ANSWER_LIMIT_S = 2.0
"""How long the other node may take; then the owner is asked again, which is there."""

_AT_ONCE = 64
"""So many reads are sent to one node at once."""


class Membership(Protocol):
    """What a node knows of its cluster."""

    @property
    def revocations(self) -> RevocationTail:
        """What follows the stream of revocations, whichever node has it."""

    def has(self, key: bytes) -> bool:
        """Tell whether the node has the slot of a key."""

    def doubt(self) -> None:
        """Note that a reply disagrees with what is known of the slots."""

    def at(self, place: Place) -> Address:
        """Return the address of another node; without a host it is on the same machine."""


class _Asked(NamedTuple):
    """A read that another node answers."""

    stream: StreamName
    place: Place
    command: Command
    on_reply: OnReply


def asked_place(reply: object) -> Place | None:
    """Return where to ask for a key on its way; None if the reply says something else."""
    words = str(reply).split(" ")
    if not is_elsewhere(reply) or reply.code != "ASK" or len(words) != 3:
        return None
    host, _, port = words[2].rpartition(":")
    return Place(host, int(port)) if port.isdecimal() else None


class Moving:
    """Read streams on their way, and have them read again for as long as they are.

    ``read_again(stream)`` has a stream read at its owner; False: nobody follows it any more.
    ``announced(merchant_id)`` does so as if a change had been announced.
    """

    def __init__(
        self,
        membership: Membership,
        read_again: Callable[[StreamName], bool],
        announced: Callable[[str], None],
        reply_limit_bytes: int,
    ) -> None:
        self._membership = membership
        self._read_again = read_again
        self._announced = announced
        self._reply_limit_bytes = reply_limit_bytes
        self._queue: deque[_Asked] = deque()
        self._arrived = asyncio.Event()
        self._on_their_way: dict[StreamName, bool] = {}
        """Those that are read again, and whether another node has answered for them."""

    def takes(
        self, stream: StreamName, reply: object, command: Command, on_reply: OnReply
    ) -> TypeGuard[ErrorReply]:
        """Tell whether a reply says that the stream is elsewhere.

        ``on_reply`` is called later then, with the reply of the node that has it, or, if no other
        node is to be asked now, at once, with this one.
        """
        if not is_elsewhere(reply):
            if self._on_their_way.pop(stream, False) and stream is not None:
                self._announced(stream)
            return False
        self._membership.doubt()
        place = asked_place(reply)
        if place is None:
            on_reply(reply)
        else:
            self._queue.append(_Asked(stream, place, command, on_reply))
            self._arrived.set()
        return True

    def expect(self, stream: StreamName) -> None:
        """Note that a stream's slot is on its way: have it read again until its owner has it."""
        self._on_their_way.setdefault(stream, False)
        self._read_again(stream)

    def look_again(self) -> None:
        """Have the streams read that are on their way."""
        gone = [each for each in self._on_their_way if not self._read_again(each)]
        for each in gone:
            del self._on_their_way[each]

    def works(self) -> tuple[Coroutine[None, None, Never], ...]:
        """Return what is to run for as long as the connection to the owner lasts."""
        return self._ask(), self._look_again()

    async def _ask(self) -> Never:
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while self._queue:
                    await self._ask_one_place()
        finally:
            # The connection to the owner is lost, and all that is read there is read again.
            self._queue.clear()
            self._on_their_way.clear()

    async def _look_again(self) -> Never:
        while True:
            await asyncio.sleep(_AGAIN_S)
            self.look_again()

    async def _ask_one_place(self) -> None:
        place = self._queue[0].place
        batch = [each for each in self._queue if each.place == place][:_AT_ONCE]
        chosen = set(map(id, batch))
        self._queue = deque(each for each in self._queue if id(each) not in chosen)
        replies = await self._answers(place, [each.command for each in batch])
        for asked, reply in zip(batch, replies, strict=True):
            if not is_elsewhere(reply):
                self._on_their_way[asked.stream] = True
            asked.on_reply(reply)

    async def _answers(self, place: Place, commands: list[Command]) -> list[object]:
        """Return a reply to each command; one that is too large costs the others nothing."""
        try:
            async with asyncio.timeout(_ANSWER_LIMIT_S):
                return await self._exchange(place, commands)
        except ReplyTooLarge as exc:
            if len(commands) == 1:
                return [exc]
            return [reply for each in commands for reply in await self._answers(place, [each])]
        except (RedisError, OSError) as exc:  # TimeoutError is an OSError
            return [ErrorReply(f"TRYAGAIN {exc}")] * len(commands)

    async def _exchange(self, place: Place, commands: list[Command]) -> list[object]:
        opening = open_connection(
            self._membership.at(place), "asking", self._reply_limit_bytes, tracks=False
        )
        with closing(await opening) as connection:
            await connection.send([each for command in commands for each in (ASKING, command)])
            return [await _second(connection) for _ in commands]


async def _second(connection: Connection) -> object:
    """Return the reply to a command that ASKING precedes."""
    await connection.read()
    return await connection.read()
