"""What the hub knows of a client: by what its streams are counted, and its right."""

from __future__ import annotations

import pytest

from flask_sse_lite.history.log import Log
from flask_sse_lite.history.revocations import REVOCATIONS, Revocation
from flask_sse_lite.hub.client import NOBODY, Client


@pytest.mark.parametrize(
    ("identity", "address", "key"),
    [
        ("ann", "192.0.2.1", ("identity", "ann")),
        ("", "192.0.2.1", ("identity", "")),
        (None, "192.0.2.1", ("address", "192.0.2.1")),
        (None, "", None),
        (None, None, None),
    ],
)
def test_streams_are_counted_by_the_identity_or_else_the_address(
    identity: str | None, address: str | None, key: tuple[str, str] | None
) -> None:
    assert Client(identity, address, 0.0).key == key


def test_a_client_is_revoked_as_who_it_is_and_since_it_was_let_in() -> None:
    log = Log(history=9, age=99, clock=lambda: 10.0)
    log.append(REVOCATIONS, Revocation("ann", "a").to_event())

    def is_revoked(identity: str, channel: str, let_in: float, seen: int = -1) -> bool:
        client = Client(identity, None, let_in)
        return client.is_revoked(log.revocations, (channel,), seen)

    assert is_revoked("ann", "a", 10.0)
    assert not is_revoked("ann", "a", 10.1)
    assert not is_revoked("ann", "b", 10.0)
    assert not is_revoked("bob", "a", 10.0)
    assert not is_revoked("ann", "a", 10.0, log.revocations.newest)
    assert not NOBODY.is_revoked(log.revocations, ("a",))
