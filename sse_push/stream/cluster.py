"""A cluster: its primaries, each followed like a server of its own, and who has which merchant.

Knows that slots move, and brings each merchant to the primary that has its slot. Does not know how
a primary is followed (``follow``), nor how the nodes are asked (``survey``).

Theory of operation
-------------------

**A slot that has another owner is another history.** Whether its streams moved with it, were left
behind, or are an older copy, no reply tells. So each merchant whose slot has moved is read anew at
the new owner, with a resync for those who know it, a merchant without a stream included: of a key
that does not exist, no node announces that it has gone elsewhere.

**The owners are asked, all of them, again and again** (``survey``): with each probe, and at once
when a reply disagrees with what we know (MOVED, ASK, CLUSTERDOWN). Until then a merchant may be
silent: for one interval of the probe, and the second that an answer may take.

**A primary that is away harms its merchants alone.** Their notifications are refused, and all
others go on: the process stays ready as long as one primary is there, and none takes entries of
ours without announcing them.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from contextlib import suppress

from sse_push.notification import Entry, EntryId
from sse_push.stream.address import Address, Place
from sse_push.stream.append import Appender
from sse_push.stream.bell import BellKind
from sse_push.stream.follow import FollowTally
from sse_push.stream.guests import Guests
from sse_push.stream.homes import Homes
from sse_push.stream.listener import Listener
from sse_push.stream.member import Member
from sse_push.stream.outcomes import AppendTally
from sse_push.stream.pipeline import until_one_fails
from sse_push.stream.primary import Terms, appender_at
from sse_push.stream.replies import pause_s
from sse_push.stream.revocations import RevocationTail
from sse_push.stream.seeds import Seeds
from sse_push.stream.slots import NO_SLOTS, SlotMap, slot_of
from sse_push.stream.survey import News, NobodyAnswers, Survey

logger = logging.getLogger(__name__)

_GUEST_S = 10.0
"""How long a connection to a node that is no member is kept without use."""


class Cluster:
    """Follow all primaries of a cluster, as a ``Follower`` follows one server."""

    def __init__(self, seeds: Seeds, listener: Listener, terms: Terms) -> None:
        self._seeds = seeds
        self.listener = listener
        self.terms = terms
        self.appended = AppendTally()
        """What became of the records of all members."""
        self.revocations = RevocationTail(listener.revoke, listener.revoke_all)
        self.slots = NO_SLOTS
        self._survey = Survey(seeds)
        self._members: dict[str, Member] = {}
        """The primaries that have slots, by the IDs of their nodes."""
        self._homes = Homes(self._owner_of_merchant)
        keep_s = _GUEST_S + terms.notify_timeout_s
        self._guests = Guests(self._begin_guest, self._stop, keep_s=keep_s)
        self._tasks: dict[Member | Appender, asyncio.Task[None]] = {}
        self._doubted = asyncio.Event()
        self._news = News()
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gone = FollowTally.of_none()
        """What members counted that are members no more."""

    # -- what others ask; as of a ``Follower``

    @property
    def age_s(self) -> float:
        """Seconds since it was last proved that every change is found, where that can be.

        Infinite if it never was, or if no primary is there at all.
        """
        members = self._members.values()
        ages = [each.age_s for each in members if not each.is_late]
        # One that is away is left out before it is: whoever reads the age later adds to it.
        ages = ages or [each.age_s for each in members if not each.is_away]
        return max(ages, default=math.inf)

    @property
    def primaries_away(self) -> tuple[str, ...]:
        """The places of the primaries that take no entries, be it all of them."""
        return tuple(str(each.node.place) for each in self._members.values() if each.is_away)

    @property
    def is_well(self) -> bool:
        """Whether another process would do no better."""
        return all(each.follower.is_well for each in self._members.values())

    @property
    def redis_time_s(self) -> float:
        """The time by the clock of one of the primaries, in seconds since 1970."""
        return next((each.follower.redis_time_s for each in self._members.values()), time.time())

    @property
    def bell(self) -> BellKind:
        """By which changes are heard of; messages if one primary at least needs them."""
        kinds = {each.follower.bell for each in self._members.values()}
        return "pubsub" if "pubsub" in kinds else "tracking"

    @property
    def tally(self) -> FollowTally:
        """What all members have counted."""
        return sum((each.follower.tally for each in self._members.values()), self._gone)

    @property
    def knows_revocations(self) -> bool:
        """As ``Follower.knows_revocations``, of the primary that has their stream."""
        owner = self._owner_of(self.terms.keys.revocations)
        return owner is not None and owner.follower.knows_revocations

    async def wait_for_revocations(self, timeout_s: float) -> bool:
        """Return ``knows_revocations``, after waiting at most ``timeout_s`` for them to be read."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while (owner := self._owner_of(self.terms.keys.revocations)) is None:
                    await self.news()
                await owner.follower.wait_for_revocations(timeout_s)
        return self.knows_revocations

    def watch(self, merchant_id: str) -> None:
        """Follow a merchant's stream from now on, wherever it is."""
        self._homes.watch(merchant_id)

    def unwatch(self, merchant_id: str) -> None:
        """Follow a merchant's stream no longer."""
        self._homes.unwatch(merchant_id)

    async def between(
        self, merchant_id: str, start: EntryId, end: EntryId
    ) -> tuple[Entry, ...] | None:
        """As ``Follower.between``."""
        home = self._homes[merchant_id]
        return None if home is None else await home.follower.between(merchant_id, start, end)

    async def give_up_if_deaf(self) -> None:
        """Wait for ever: each member gives up by itself, which ends ``run``."""
        await asyncio.Event().wait()

    async def run(self) -> None:
        """Keep all primaries followed, for ever."""
        try:
            await until_one_fails(self._ask_for_ever(), self._until_broken())
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # -- for those who add

    def at(self, place: Place) -> Address:
        """Return the address of the node at a place."""
        return self._seeds.at(place)

    def doubt(self) -> None:
        """Have the nodes asked at once."""
        self._doubted.set()

    async def news(self) -> None:
        """As ``News.wait``."""
        await self._news.wait()

    def appender_of(self, key: str) -> Appender | None:
        """Return what adds to the stream of a key; None: nobody has its slot."""
        owner = self._owner_of(key)
        return None if owner is None else owner.appender

    def appender_at(self, place: Place) -> Appender:
        """Return what adds at a place that a reply has named."""
        for member in self._members.values():
            if member.node.place == place:
                return member.appender
        return self._guests.at(place)

    # -- the work

    async def _until_broken(self) -> None:
        await self._broken

    async def _ask_for_ever(self) -> None:
        failures = doubts = 0
        while True:
            is_doubted = self._doubted.is_set()
            self._doubted.clear()
            self._news.asks()
            asked = {each.node.place: each.follower.ask for each in self._members.values()}
            try:
                slots = await self._survey.ask(asked)
            except NobodyAnswers as exc:
                if not failures:
                    logger.warning("no node of the cluster answers cause=%s", exc)
                failures += 1
                await asyncio.sleep(pause_s(failures))
                continue
            if failures:
                logger.info("nodes of the cluster answer again")
            failures = 0
            is_changed = self._settle(slots)
            # After a doubt that asking did not end, the nodes are asked less and less often.
            doubts = doubts + 1 if is_doubted and not is_changed else 0
            await asyncio.sleep(pause_s(doubts) if doubts else 0)
            with suppress(TimeoutError):
                async with asyncio.timeout(self.terms.probe_interval_s):
                    await self._doubted.wait()

    def _settle(self, slots: SlotMap) -> bool:
        """Bring every merchant to the primary that has it now; whether anything has changed."""
        is_changed = slots != self.slots
        if is_changed:
            is_first = not self._members
            self.slots = slots
            before, self._members = self._members, {}
            for node_id, node in slots.nodes.items():
                member = before.get(node_id)
                if member is None or member.node.place != node.place:
                    member = Member(self, node, is_first=is_first)
                    self._start(member)
                    self._start(member.appender)
                self._members[node_id] = member
            moved = self._homes.settle()
            self._move_revocations(before)
            for member in before.values():
                if self._members.get(member.node.id) is not member:
                    self._gone += member.follower.tally
                    self._stop(member)
                    self._guests.keep(member.node.place, member.appender)
            logger.info("cluster primaries=%d merchants_moved=%d", len(self._members), moved)
        for member in self._members.values():
            member.read_refused()
        if slots.moving:
            self._expect_moves(slots.moving)
        self._guests.end_unused()
        self._news.arrive()
        return is_changed

    def _move_revocations(self, before: dict[str, Member]) -> None:
        owner = self._owner_of(self.terms.keys.revocations)
        for member in {*before.values(), *self._members.values()}:
            revocations = member.follower.revocations
            if revocations.is_here and member is not owner:
                revocations.leave()
        if owner is not None and not owner.follower.revocations.is_here:
            owner.follower.revocations.arrive()

    def _expect_moves(self, moving: frozenset[int]) -> None:
        keys = self.terms.keys
        for merchant_id, home in self._homes.items():
            if home is not None and slot_of(keys.stream(merchant_id)) in moving:
                home.expect_move(merchant_id)
        owner = self._owner_of(keys.revocations)
        if owner is not None and slot_of(keys.revocations) in moving:
            owner.expect_move(None)

    def _owner_of_merchant(self, merchant_id: str) -> Member | None:
        return self._owner_of(self.terms.keys.stream(merchant_id))

    def _owner_of(self, key: str) -> Member | None:
        return self._members.get(self.slots.owner_of(slot_of(key)))

    def _begin_guest(self, place: Place) -> Appender:
        guest = appender_at(self.at(place), self.terms, self.appended)
        self._start(guest)
        return guest

    def _start(self, part: Member | Appender) -> None:
        task = self._tasks[part] = asyncio.create_task(part.run(), name="primary")
        task.add_done_callback(self._on_end)

    def _stop(self, part: Member | Appender) -> None:
        self._tasks.pop(part).cancel()

    def _on_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and not self._broken.done():
            exc = task.exception()
            assert exc is not None, "a member runs for ever"
            self._broken.set_exception(exc)
