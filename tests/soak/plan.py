"""The plan of a run: how long it takes, how many clients there are, and when something
is done to the service.

Nothing here waits or acts. All times are seconds from the beginning of the run.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, takewhile
from typing import NamedTuple

#: What is done to the service, and how each is called on the page.
KILL, REPLACE, RESTART, DROP = "kill", "replace", "restart", "drop"

DEEDS = {
    KILL: "A worker is killed (SIGKILL)",
    REPLACE: "All workers are replaced (SIGHUP)",
    RESTART: "Redis is restarted",
    DROP: "A network is down: its clients vanish without a FIN",
}

#: Parts of a run in which something is done to the service. Before, all clients come.
#: Behind, what was done last must have healed when the clients are counted.
BEGIN, END = 0.08, 0.9

#: The part of a run behind which one worker, the elder, is neither killed nor replaced
#: before ``END``: only a worker that lives for long can show that it does not grow.
ELDER = 0.46

#: Heartbeats of silence behind which a client gives a connection up, as the page's
#: module does.
GIVE_UP = 2.5


class Deed(NamedTuple):
    at: float
    name: str


@dataclass(frozen=True)
class Plan:
    """What one run is.

    :param seconds: how long it takes, without the time in which it starts and ends.
    :param rate: events a second.
    :param per_room: clients of each room. All clients also listen to ``EVERYBODY``.
    :param stay: seconds after which a client leaves or comes back, on the average.
    :param every: seconds from one deed to the next of its kind.
    :param replacing: parts of the run at which all workers are replaced.
    :param down: seconds for which a network is down.
    """

    seconds: float
    clients: int = 2000
    rate: float = 200.0
    workers: int = 4
    per_room: int = 20
    stay: float = 60.0
    heartbeat: float = 5.0
    every: tuple[tuple[str, float], ...] = (
        (KILL, 20.0),
        (RESTART, 100.0),
        (DROP, 75.0),
    )
    replacing: tuple[float, ...] = (0.14, 0.28, 0.42, 0.88)
    down: float = 30.0
    sample_every: float = 5.0
    seed: int = 0

    @property
    def rooms(self) -> list[str]:
        return [f"room.{n}" for n in range(max(1, self.clients // self.per_room))]

    @property
    def behind_a_network(self) -> int:
        """How many of the clients can lose their network."""
        return self.clients // 10

    @property
    def half(self) -> float:
        """Where the second half begins, over which growth is judged."""
        return self.seconds / 2

    def deeds(self) -> list[Deed]:
        """What is done to the service, and when, in order."""
        return sorted(self._deeds())

    def _deeds(self) -> Iterator[Deed]:
        chance = random.Random(self.seed)
        first, last = BEGIN * self.seconds, END * self.seconds
        for name, every in self.every:
            begin = first + every / 3
            for at in takewhile(last.__gt__, count(begin, every)):
                yield Deed(min(last, at + chance.uniform(0, every / 5)), name)
        for part in self.replacing:
            yield Deed(part * self.seconds, REPLACE)


#: The channel of all clients, and how many of its events there are a second.
EVERYBODY, EVERYBODY_RATE = "everybody", 1.0


def long(minutes: float) -> Plan:
    """The plan of ``make soak``."""
    return Plan(seconds=60 * minutes)


def short() -> Plan:
    """The plan of a test: each deed once, within seconds. It shows that the tool works,
    and judges no growth."""
    return Plan(
        seconds=18.0,
        clients=60,
        rate=40.0,
        workers=2,
        per_room=6,
        stay=5.0,
        heartbeat=1.0,
        every=((KILL, 9.0), (RESTART, 20.0), (DROP, 18.0)),
        replacing=(0.7,),
        down=4.0,
        sample_every=1.0,
    )
