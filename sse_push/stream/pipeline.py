"""Commands and their replies on one tracked connection, with announcements in between.

Knows that Redis replies in the order of the commands. Does not know what the commands are, nor
how a connection is made.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError

from sse_push.stream.connection import Announcement, read_reply_or_announcement, send_commands
from sse_push.stream.contract import Command

AT_ONCE = 256
"""At most this many commands of a kind go out at once; 50 reads take Redis and us 1.8 ms."""

OnReply = Callable[[object], None]
Request = tuple[Command, OnReply]


class Pipeline:
    """Send commands in as few round trips as possible, and hand each reply on.

    ``next_requests()`` returns the requests besides those of ``ask``; it is called after each
    ``wake`` until it returns none. The reply to a command whose connection is lost is that error.
    """

    def __init__(
        self,
        next_requests: Callable[[], Sequence[Request]],
        on_announcement: Callable[[Announcement], None],
    ) -> None:
        self._next_requests = next_requests
        self._on_announcement = on_announcement
        self._is_wanted = asyncio.Event()
        self._asked: deque[Request] = deque()
        self._in_flight: deque[OnReply] = deque()

    def wake(self) -> None:
        """Note that there may be something to send."""
        self._is_wanted.set()

    async def ask(self, command: Command) -> object:
        """Send one command and return its reply, an error as a value."""
        replied: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        def on_reply(reply: object) -> None:
            if not replied.done():  # the caller may have been canceled
                replied.set_result(reply)

        self._asked.append((command, on_reply))
        self.wake()
        return await replied

    async def send(self, connection: AbstractConnection) -> None:
        """Send the requests that are due, for ever."""
        while True:
            await self._is_wanted.wait()
            self._is_wanted.clear()
            while batch := self._next_batch():
                self._in_flight.extend(on_reply for _, on_reply in batch)
                commands = [command for command, _ in batch]
                await send_commands(connection, commands)

    async def receive(self, connection: AbstractConnection) -> None:
        """Hand on replies and announcements in the order in which Redis sent them, for ever."""
        while True:
            for _ in range(AT_ONCE):
                reply = await read_reply_or_announcement(connection)
                if isinstance(reply, Announcement):
                    self._on_announcement(reply)
                elif self._in_flight:
                    self._in_flight.popleft()(reply)
            await asyncio.sleep(0)  # a full buffer is read without suspending

    def abandon(self) -> None:
        """End all requests: their connection is lost, and their replies with it."""
        lost = RedisConnectionError("the connection to Redis was lost before its answer")
        callbacks = [*self._in_flight, *(on_reply for _, on_reply in self._asked)]
        self._in_flight.clear()
        self._asked.clear()
        for on_reply in callbacks:
            on_reply(lost)

    def _next_batch(self) -> list[Request]:
        asked = [self._asked.popleft() for _ in range(min(len(self._asked), AT_ONCE))]
        return [*asked, *self._next_requests()]


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
