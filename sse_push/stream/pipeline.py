"""Commands and their replies on one tracked connection, with announcements in between.

Knows that Redis replies in the order of the commands. Does not know what the commands are, nor
how a connection is made.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence

from sse_push.stream.connection import Announcement, Connection
from sse_push.stream.contract import Command
from sse_push.stream.failures import RedisConnectionError
from sse_push.stream.parser import ReplyTooLarge
from sse_push.stream.window import Window

AT_ONCE = 256
"""At most this many commands of a kind go out at once; 50 reads take Redis and us 1.8 ms."""

OnReply = Callable[[object], None]
Request = tuple[Command, OnReply]


class ReplyLost(RedisConnectionError):
    """A command was sent, and its connection was lost before its reply had arrived.

    With ``excess`` that reply was the one that exceeds the limit, and the connection was given up
    for it.
    """

    def __init__(self, excess: ReplyTooLarge | None = None) -> None:
        super().__init__(str(excess or "the connection to Redis was lost before its answer"))
        self.excess = excess


class Pipeline:
    """Send commands in as few round trips as possible, and hand each reply on.

    ``next_requests(most)`` returns at most so many requests besides those of ``ask``; it is called
    after each ``wake`` until it returns none, or until as many are on their way as the window has
    room for. Half of the room is for them. The reply to a command whose connection is lost is
    that error: a ``ReplyLost`` if the reply may have been the cause.
    """

    def __init__(
        self,
        next_requests: Callable[[int], Sequence[Request]],
        on_announcement: Callable[[Announcement], None],
    ) -> None:
        self._next_requests = next_requests
        self._on_announcement = on_announcement
        self._is_wanted = asyncio.Event()
        self._asked: deque[Request] = deque()
        self._in_flight: deque[OnReply] = deque()
        self._window = Window()
        self._is_held_back = False
        """Whether there may be something to send, for which the window has no room yet."""
        self._asked_first = False
        """Whose turn it is if there is room for one request only."""
        self._sent = 0
        self._announcements = 0
        self._excess: ReplyTooLarge | None = None
        """The reply for which the connection was given up."""
        self._connection: Connection | None = None

    @property
    def partial_bytes(self) -> int:
        """How much has arrived of the reply that is waited for; 0 without a connection."""
        return 0 if self._connection is None else self._connection.partial_bytes

    def wake(self) -> None:
        """Note that there may be something to send."""
        self._is_wanted.set()

    async def ask(self, command: Command, *, is_urgent: bool = False) -> object:
        """Send one command and return its reply, an error as a value; an urgent one goes first."""
        replied: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        def on_reply(reply: object) -> None:
            if not replied.done():  # the caller may have been canceled
                replied.set_result(reply)

        (self._asked.appendleft if is_urgent else self._asked.append)((command, on_reply))
        self.wake()
        return await replied

    async def send(self, connection: Connection) -> None:
        """Send the requests that are due, for ever; the probe notices if Redis takes none."""
        self._connection = connection
        while True:
            await self._is_wanted.wait()
            self._is_wanted.clear()
            while batch := self._next_batch(connection.received_bytes):
                self._in_flight.extend(on_reply for _, on_reply in batch)
                await connection.send([command for command, _ in batch])

    async def receive(self, connection: Connection) -> None:
        """Hand on replies and announcements in the order in which Redis sent them, for ever.

        Raises:
            ReplyTooLarge: the reply to the first command on its way.
            RedisError: the connection is lost.
        """
        try:
            while True:
                for _ in range(AT_ONCE):
                    reply = await connection.read_or_announcement()
                    if isinstance(reply, Announcement):
                        self._announcements += 1
                        self._on_announcement(reply)
                    elif self._in_flight:
                        self._in_flight.popleft()(reply)
                        if self._is_held_back and self._window.has_room(len(self._in_flight)):
                            self._is_wanted.set()
                await asyncio.sleep(0)  # a full buffer is read without suspending
        except ReplyTooLarge as exc:
            self._excess = exc
            raise

    def abandon(self) -> None:
        """End all requests: their connection is lost, and their replies with it.

        If one reply is known to be the cause, no other one is suspected.
        """
        self._connection = None
        lost, unsent = ReplyLost(self._excess), RedisConnectionError("a connection was lost")
        in_flight, asked = list(self._in_flight), list(self._asked)
        suspected = len(in_flight) if self._excess is None else 1
        self._window.restart(was_cut=bool(in_flight))
        self._in_flight.clear()
        self._asked.clear()
        self._sent = self._announcements = 0
        self._excess = None
        for on_reply in in_flight[:suspected]:
            on_reply(lost)
        for on_reply in (*in_flight[suspected:], *(on_reply for _, on_reply in asked)):
            on_reply(unsent)

    def _next_batch(self, received_bytes: int) -> list[Request]:
        in_flight = len(self._in_flight)
        self._window.answered(self._sent - in_flight, self._announcements, received_bytes)
        room = min(AT_ONCE, self._window.room(in_flight))
        self._is_held_back = room == 0
        if not room:
            return []
        self._asked_first = not self._asked_first
        batch = self._next_asked((room + self._asked_first) // 2)
        batch += self._next_requests(room - len(batch))
        batch += self._next_asked(room - len(batch))
        self._sent += len(batch)
        return batch

    def _next_asked(self, most: int) -> list[Request]:
        return [self._asked.popleft() for _ in range(min(len(self._asked), most))]


async def until_one_fails(*works: Coroutine[None, None, None]) -> None:
    """Run all until one raises, then end the others and raise that.

    Not a TaskGroup: on Python 3.11, if a child of a group fails while the group is canceled, the
    group raises the failure and forgets the cancellation. The follower would connect anew for ever
    while the process waits for its end.
    """
    tasks = [asyncio.create_task(work, name=f"tail {number}") for number, work in enumerate(works)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()
