"""What the Redis broker has Redis do: a few scripts, each done as one step.

Here lives how events stand in Redis. Under one prefix there are ``store``, a hash with
what there is to say of the whole; ``channels``, a sorted set with the last position of
each channel; and of each channel a stream, ``channel:<name>``. The streams go by
themselves when they are too old; the hash stays. Of a channel that a run feeds, or fed
a while ago, there is a hash, ``run:<name>``; and of all that go on, in the sorted set
``leases``, when they are taken for dead.

No position is used twice in one epoch, nor by two lives of a server: one that was
started again, or took over from another, can have lost what it had acknowledged. So the
first who speaks to it leaves out a great many positions. Whoever knows of a position
that was left out knows that something is lost, and that begins another epoch.

A server's life has a name: the server's own, which INFO tells; or where that is not to
be had, a mark, which is the name of a script that the server keeps in its memory alone.

A key can go back while the server lives (RESTORE). The store, the index and a channel's
stream tell that by one another: the newest position stands in all three.
"""

from __future__ import annotations

import hashlib

from .begin import BEGIN
from .events import GET, PUT, SURVEY
from .processes import COUNT, EXTEND, LOST, UNKNOWN


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
