"""The order of the questions: what is asked of a service, and which answers make others moot.

Knows what to ask. Does not know what an answer means (``judging``, ``rights``), nor sockets
(``asking``).

At most ``TABS`` + 1 event streams are open at once. Nothing is asked that would change data: a
notification of a topic of its own, ``TOPIC``, makes pages of the merchant fetch once at most.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from sse_push.access.gate import MERCHANT_HEADER
from sse_push.doctor import judging, reading, rights
from sse_push.doctor.asking import Answer, Exchange, Stage, exchange
from sse_push.doctor.faults import Fault, Result, has_failed
from sse_push.doctor.network import reach
from sse_push.doctor.target import MERCHANT, Address, Target
from sse_push.http import paths
from sse_push.settings import Settings

TOPIC = "sse-push-doctor"
TABS = 8
"""How many streams are opened at once: more than a browser opens over HTTP/1.1."""

NOTIFICATIONS = 3
"""So many, one after the other: the quickest counts, since any may be late by chance."""

_STREAM = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
_JSON = {"Content-Type": "application/json"}
_PLAIN = {"Accept-Encoding": "identity"}


def _has_begun(answer: Answer) -> bool:
    """Return whether an event stream has sent its first event."""
    return bool(answer.events)


class Examination:
    """One run of ``doctor``: asks a target, and collects results.

    ``say`` gets a line for people before something that takes long.
    """

    def __init__(self, target: Target, say: Callable[[str], None]) -> None:
        self._target = target
        self._say = say
        self._trust = target.trust("http/1.1")
        self.results: list[Result] = []

    async def run(self) -> list[Result]:
        """Ask everything that makes sense, and return what was found."""
        target = self._target
        self._say(f"asking {target.address}")
        self.results += judging.judge_network(target, await reach(target))
        if has_failed(self.results):
            return self.results
        bare = await self._ask_events({}, is_bare=True)
        self.results.append(judging.judge_redirect(bare))
        if has_failed(self.results):
            return self.results
        head = await self._ask_events({}, method="HEAD")
        if bare.status == head.status == 0:
            tried = "GET /events without credentials, and HEAD"
            self.results.append(Result("stream", tried, str(bare), Fault.NO_ANSWER))
            return self.results
        self.results += [judging.judge_version([bare, head]), judging.judge_clock(head)]
        self.results.append(await self._closed())
        if bare.status:
            self.results.append(rights.judge_anyone(bare))
        async with AsyncExitStack() as stack:
            stream = await self._open(stack, head)
            if stream is not None:
                await self._examine(stream, bare)
        return self.results

    # -- the stream

    async def _open(self, stack: AsyncExitStack, head: Answer) -> Exchange | None:
        """Open the stream that is listened to; return None if there is none."""
        stream = await self._stream(stack, {})
        is_odd = stream.answer.stage is Stage.WAITING or "content-encoding" in stream.answer.headers
        plain = await self._stream(stack, _PLAIN) if is_odd else None
        limit_s = self._target.timeout_s
        found = judging.judge_open(stream.answer, plain.answer if plain else None, head, limit_s)
        self.results.append(found)
        if found.fault is Fault.COMPRESSION and plain is not None and plain.answer.of("ready"):
            return plain
        return None if found.fault is not None else stream

    async def _stream(self, stack: AsyncExitStack, headers: Mapping[str, str]) -> Exchange:
        opened = await stack.enter_async_context(self._events(headers))
        await opened.wait(_has_begun, self._target.timeout_s)
        return opened

    async def _examine(self, stream: Exchange, bare: Answer) -> None:
        """Examine what only an open stream shows."""
        target = self._target
        self.results.append(judging.judge_headers(stream.answer))
        cache = judging.judge_cache(stream.answer, await self._ask_events(_PLAIN))
        self.results.append(cache)
        if cache.fault is not None:
            return  # the same old bytes would be judged again and again
        posted, delays_s = await self._notify(stream)
        await self._ask_who_may_listen(bare)
        await self._ask_again(stream)
        began_at = stream.sent_at
        silence = await self._listen(stream, began_at) if target.wait_s != 0 else None
        if posted is not None:
            is_held = silence is not None and silence.fault is Fault.BUFFERING
            self.results.append(
                rights.judge_notify(posted, delays_s, stream.answer, is_held=is_held)
            )
        self.results += [silence] if silence is not None else []

    async def _ask_who_may_listen(self, bare: Answer) -> None:
        target = self._target
        if target.token is not None:
            answer = await self._ask_events(
                {"Authorization": f"Bearer {target.token}"}, method="HEAD", is_bare=True
            )
            self.results.append(rights.judge_authorization(answer))
        if target.cookies:
            answer = await self._ask_events({**_PLAIN, **self._cookie()}, is_bare=True)
            self.results.append(rights.judge_cookie(bare, answer))
        if not bare.is_event_stream:
            spoofed = {MERCHANT_HEADER: target.merchant_id or MERCHANT}
            answer = await self._ask_events(spoofed, method="HEAD", is_bare=True)
            self.results.append(rights.judge_spoofing(bare, answer))
        if target.origin is not None:
            answer = await self._ask_events({"Origin": target.origin}, method="HEAD")
            self.results.append(rights.judge_origin(target, answer))

    async def _ask_again(self, stream: Exchange) -> None:
        """Ask as a browser that comes back, and as one with several tabs."""
        last_id = stream.answer.events[-1][1].id
        if last_id:
            resumed = await self._ask_events({**_PLAIN, "Last-Event-ID": last_id})
            self.results.append(judging.judge_resumption(resumed, last_id))
        tabs = await asyncio.gather(*(self._tab() for _ in range(TABS)))
        self.results.append(judging.judge_tabs(tabs))

    async def _tab(self) -> Answer:
        return await self._ask_events(_PLAIN)

    async def _listen(self, stream: Exchange, began_at: float) -> Result:
        """Listen until two heartbeats have arrived, or should have."""
        heartbeat_s = reading.heartbeat_of(stream.answer)
        wait_s = self._target.wait_s
        limit_s = 2 * judging.HEARTBEATS_LATE * heartbeat_s if wait_s is None else wait_s
        usual_s = 2 * heartbeat_s if wait_s is None else wait_s
        self._say(f"listening for {usual_s:.0f} s or so (--quick leaves this out)")

        def is_enough(answer: Answer) -> bool:
            return wait_s is None and len(answer.of("heartbeat")) >= 2

        await stream.wait(is_enough, limit_s)
        return judging.judge_silence(stream.answer, heartbeat_s, time.monotonic() - began_at)

    # -- for backends

    async def _closed(self) -> Result:
        address = self._target.address
        answers = await asyncio.gather(
            self._ask(address, paths.NOTIFY, _JSON, "POST", b"{}"),
            self._ask(address, paths.REVOKE, _JSON, "POST", b"{}"),
            self._ask(address, paths.METRICS, {}, "GET"),
        )
        named = zip((paths.NOTIFY, paths.REVOKE, paths.METRICS), answers, strict=True)
        return rights.judge_closed(self._target, dict(named))

    async def _notify(self, stream: Exchange) -> tuple[Answer | None, list[float | None]]:
        """Notify, and wait for each refresh; return the last answer and how late each was."""
        target = self._target
        if target.notify_address is None:
            text = "not examined: no --notify-url" if target.key else "not examined: no key"
            self.results.append(Result("delivery", "POST /notify", text, is_note=True))
            return None, []
        merchant_id = reading.merchant_of(stream.answer) or MERCHANT
        delays_s: list[float | None] = []
        answer = Answer()
        while len(delays_s) < NOTIFICATIONS and None not in delays_s:
            answer = await self._post(merchant_id)
            if answer.status != 200:
                return answer, delays_s
            delays_s.append(await self._arrival(stream, answer))
        await self._post_large(merchant_id)
        return answer, delays_s

    async def _post(self, merchant_id: str, size_bytes: int = 0) -> Answer:
        target = self._target
        assert target.notify_address is not None, "asked only with it"
        body = json.dumps({"merchant_id": merchant_id, "topic": TOPIC}).encode()
        headers = {**_JSON, **({"Authorization": f"Bearer {target.key}"} if target.key else {})}
        body = body.ljust(size_bytes)
        return await self._ask(target.notify_address, paths.NOTIFY, headers, "POST", body)

    async def _arrival(self, stream: Exchange, answer: Answer) -> float | None:
        """Return how long after the answer its refresh arrived; None: it did not in time."""
        answered_at = time.monotonic()
        posted = reading.event_id_of(str(reading.object_of(answer.body).get("id")))

        def refreshed(got: Answer) -> float | None:
            for at_s, event in got.of("refresh"):
                found = reading.event_id_of(event.id)
                if found and posted and found.entry_id >= posted.entry_id:
                    return max(0.0, stream.sent_at + at_s - answered_at)
            return None

        await stream.wait(lambda got: refreshed(got) is not None, self._target.timeout_s)
        return refreshed(stream.answer)

    async def _post_large(self, merchant_id: str) -> None:
        """Send the largest body that the service permits."""
        size_bytes = int(Settings.model_fields["body_limit_bytes"].default)
        answer = await self._post(merchant_id, size_bytes)
        permitted = reading.permitted_bytes(answer)
        if permitted is not None and permitted < size_bytes:
            size_bytes = permitted
            answer = await self._post(merchant_id, size_bytes)
        self.results.append(rights.judge_body(answer, size_bytes))

    # -- requests

    def _cookie(self) -> dict[str, str]:
        cookies = self._target.cookies
        return {"Cookie": "; ".join(cookies)} if cookies else {}

    def _events(
        self, headers: Mapping[str, str], *, is_bare: bool = False, method: str = "GET"
    ) -> AbstractAsyncContextManager[Exchange]:
        target = self._target
        shown = {} if is_bare or target.token is not None else self._cookie()
        return exchange(
            target.address,
            target.events_path(with_token=not is_bare),
            {**_STREAM, **shown, **headers},
            method=method,
            trust=self._trust if target.address.is_tls else None,
        )

    async def _ask_events(
        self, headers: Mapping[str, str], *, is_bare: bool = False, method: str = "GET"
    ) -> Answer:
        """Ask /events, until its first event or the end of the answer; bare: no credentials."""
        async with self._events(headers, is_bare=is_bare, method=method) as asked:
            await asked.wait(_has_begun, self._target.timeout_s)
            return asked.answer

    async def _ask(
        self, address: Address, path: str, headers: dict[str, str], method: str, body: bytes = b""
    ) -> Answer:
        trust = self._trust if address.is_tls else None
        path = f"{address.base}{path}"
        async with exchange(address, path, headers, method=method, body=body, trust=trust) as asked:
            await asked.wait(lambda answer: answer.has_ended, self._target.timeout_s)
            return asked.answer
