"""The scripts that Redis runs for the Redis broker, each as one step.

Here lives how events stand in Redis. All keys have one prefix. ``store`` is a hash that
describes the whole; the sorted set ``channels``, the index, has the last position of
each channel; and each channel has a stream, ``channel:<name>``. Streams expire when
they are too old; the hash stays. A channel that a run feeds, or fed a while ago, has a
hash, ``run:<name>``. The sorted set ``leases`` has the channels whose runs go on, each
with the time at which the run's process is taken for dead.

``processes`` has the processes that serve streams, each with the time up to which its
``counts:<process>`` and ``who:<process>`` hold. The hash ``turn`` says whose turn it is
to tell who comes and leaves, and ``told:<channel>`` has the identities that are told
there, each with the time since which it is away. The set ``told`` has these channels.

No position is used twice in one epoch, nor by two lives of a server. A server that was
started again, or took over from another, can have lost what it had acknowledged. So the
first process that speaks to it skips a great many positions. If a process knows a
position that was skipped, something is lost, and another epoch begins.

A server's life has a name: the server's own, which INFO tells. Where INFO is not
allowed, a mark is used: the name of a script that the server keeps in memory alone.

A key can go back while the server lives (RESTORE). The newest position stands in the
store, in the index and in a channel's stream, so that they show it by one another.
"""

from __future__ import annotations

import hashlib

from .begin import BEGIN
from .board import ROLL, TELL, TOLD, WHO
from .events import GET, PUT, SURVEY
from .processes import COUNT, EXTEND, LOST, UNKNOWN
from .sizes import SHED, SIZES, WEIGHED


class Script:
    """A script, and the name that Redis knows it by."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.name = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


put = Script(BEGIN + PUT)
get = Script(BEGIN + GET)
survey = Script(BEGIN + SURVEY)
extend = Script(BEGIN + EXTEND)
lost = Script(BEGIN + LOST)
unknown = Script(BEGIN + UNKNOWN)
count = Script(BEGIN + COUNT)
sizes = Script(BEGIN + SIZES)
shed = Script(BEGIN + SHED)
weighed = Script(BEGIN + WEIGHED)
who = Script(BEGIN + WHO)
roll = Script(BEGIN + ROLL)
told = Script(BEGIN + TOLD)
tell = Script(BEGIN + TELL)
