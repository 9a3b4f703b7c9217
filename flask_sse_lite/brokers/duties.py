"""Duties: what a process does for its store every second or so.

Here lives what a process must do while streams or runs are open. It keeps its own runs
alive, ends runs whose process is gone, and tells the store how many streams it serves,
and whose. Where that is wished for, it has the channels told who comes and leaves.
The follower's thread calls this, and decides how long it waits in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from ..errors import BrokerUnavailable
from ..system.chance import CHANCE
from .contract import Claim
from .presence import Board, Presence
from .store import Store

#: Seconds between two looks at who is there, where a channel is told of it. A look goes
#: through all identities, so it must not come with each event.
PRESENCE_INTERVAL = 0.5


class Duties:
    """The duties of one process at a store.

    :param listeners: how many streams of each channel this process serves.
    :param identities: whose streams these are: see ``Broker.identities``.
    """

    def __init__(
        self,
        store: Store,
        listeners: Callable[[], Mapping[str, int]],
        identities: Callable[[], Mapping[str, Mapping[str, int]]] = dict,
    ) -> None:
        self._store = store
        self._listeners = listeners
        self._identities = identities
        #: Has the channels told who comes and leaves; None where nobody wishes it.
        self.presence: Presence | None = None
        #: This process's runs that are not over.
        self.claims: set[Claim] = set()
        #: Channels whose readers wait for the end of a run that the store does not
        #: know, and since when. Only the follower uses this.
        self._doubted: dict[str, float] = {}
        self._is_counted = False
        #: What the store was last told of identities, and whether all that follows from
        #: it was told to the channels.
        self._identified: Mapping[str, Mapping[str, int]] = {}
        self._is_all_told = True
        #: When the process looks next whether somebody came or left.
        self._look_at = 0.0
        #: When the duties are done next.
        self.due_at = 0.0
        #: Until then no process is taken for dead: it can have been silent only because
        #: the store was away.
        self._patient_until = 0.0

    def have_begun(self, claim: Claim) -> bool:
        """Begin a run in the store, or begin it anew where the store has lost it. Any
        thread can call this.

        :returns: whether the claim's run goes on.
        """
        if began := self._store.begin(claim):
            claim.began = began
            self._store.view.note_published(began)
            self.claims.add(claim)
            if claim.is_over:  # It ended meanwhile, and must not begin again.
                self.claims.discard(claim)
        return began is not None

    def give_up(self, claim: Claim) -> None:
        """Note that a run is over. Any thread can call this."""
        claim.is_over = True
        self.claims.discard(claim)

    def be_patient(self) -> None:
        """Note that the store was away until now, or took no writes. The follower calls
        this."""
        self._patient_until = time.monotonic() + self._store.lease
        # The process of a doubted run could not begin it anew meanwhile.
        self._doubted.clear()

    def do(self) -> None:
        """Do what is due. The follower calls this as often as possible, because others
        take a silent process for dead."""
        now = time.monotonic()
        if now < self.due_at and not self._has_news_of_presence(now):
            return
        self.due_at = now + self._store.duty_interval * CHANCE.uniform(0.8, 1)
        # The follower can still read a store that takes no writes, so it goes on.
        try:
            if self.claims:
                self.keep_claims()
            if now >= self._patient_until:
                self._store.end_lost()
            self._end_forgotten(now)
        except BrokerUnavailable:
            # Other processes cannot have their runs go on there either.
            self.be_patient()
        with suppress(BrokerUnavailable):
            counts = self._listeners()
            if counts or self._is_counted:
                self._store.count(counts)
                self._is_counted = bool(counts)
            if self._store.board:
                self._tell_identities(self._store.board)

    def _has_news_of_presence(self, now: float) -> bool:
        """Whether a channel must be told something before the next round is due."""
        if not self.presence or now < self._look_at:
            return False
        self._look_at = now + PRESENCE_INTERVAL
        return not self._is_all_told or self._identities() != self._identified

    def _tell_identities(self, board: Board) -> None:
        """Tell the store whose streams this process serves, and have the channels told
        who came and left."""
        identities = self._identities()
        has_changed = identities != self._identified
        if identities or has_changed:
            board.note(identities)
            self._identified = identities
        if self.presence:
            is_urgent = has_changed or not self._is_all_told
            # Until this has succeeded, it is tried again.
            self._is_all_told = False
            self._is_all_told = self.presence.tell(is_urgent=is_urgent)

    def keep_claims(self) -> None:
        """Have this process's runs go on."""
        claims = list(self.claims)
        epoch, known = self._store.extend(claims)
        for claim in claims:
            is_known = claim.token in known and claim.began[0] == epoch
            if not is_known and claim in self.claims:
                # The store has lost the run, or has begun another life. The store says
                # where the run begins: another thread can have begun it already.
                self.have_begun(claim)

    def _end_forgotten(self, now: float) -> None:
        """End the runs that readers here wait for and that the store has lost. If the
        process of such a run lives, it has begun the run anew before."""
        log = self._store.view.log
        own = {claim.channel for claim in list(self.claims)}
        waiting = [name for name in log.awaiting_end() if name not in own]
        unknown = self._store.unknown(waiting) if waiting else ()
        self._doubted = {name: self._doubted.get(name, now) for name in unknown}
        for name, since in self._doubted.items():
            if now - since >= self._store.lease:
                self._store.end_unknown(name, log.epoch, log.sequence)
