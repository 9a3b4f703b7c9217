"""The client of a stream: whom a view has let in, and when.

Here lives only what the hub must know of a client. How the client proved who it is, the
application knows.
"""

from __future__ import annotations

from typing import NamedTuple

from ..history.revocations import Revocations


class Client(NamedTuple):
    """Whom a view has let in.

    :param identity: who the client is, in the application's words; None where the
        application has not said it. Clients are sent it on the channels of
        ``SSE_PRESENCE``, and nowhere else.
    :param address: where the client comes from, as Flask knows it; None where nothing
        is counted by it.
    :param let_in: when the request began that let the client in
        (``time.monotonic()``).
    :param is_onlooker: whether nobody is told that the client is there.
    """

    identity: str | None
    address: str | None
    let_in: float
    is_onlooker: bool = False

    @property
    def key(self) -> tuple[str, str] | None:
        """What ``SSE_MAX_PER_CLIENT`` counts by; None where nothing is known."""
        if self.identity is not None:
            return ("identity", self.identity)
        return ("address", self.address) if self.address else None

    def is_revoked(
        self,
        revocations: Revocations,
        channels: tuple[str, ...],
        seen: int | None = None,
    ) -> bool:
        """Whether the client must be let in anew: see ``Revocations.concern``."""
        return revocations.concern(self.identity, channels, self.let_in, seen)


#: The client of a stream of which nothing is known. No revocation concerns it.
NOBODY = Client(None, None, float("inf"))
