"""A network that can be taken away: a namespace, and the link that leads there.

A client behind a link that is down vanishes without a FIN or a reset, as a telephone in
a tunnel does. Only root can make such a network. Nothing here knows clients.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

#: Seconds that a command of ``ip`` can take.
_PATIENCE = 30.0


class NoNetwork(Exception):
    """A network cannot be had here. The text says why."""


class Network:
    """A namespace, with one link to it.

    :param number: tells it from the networks of other runs at the same time.
    """

    def __init__(self, number: int) -> None:
        self._name = f"soak-{number}"
        self._here, self._there = f"soak{number}a", f"soak{number}b"
        # 198.18.0.0/15 is set aside for measurements of networks (RFC 2544).
        block = number % (1 << 14) * 4
        prefix = f"198.18.{block >> 8}"
        #: Where this machine is reached from the network.
        self.host = f"{prefix}.{block & 255 | 1}"
        self._guest = f"{prefix}.{block & 255 | 2}"

    @property
    def inside(self) -> Sequence[str]:
        """What a command begins with that runs in the network."""
        return ("ip", "netns", "exec", self._name)

    def begin(self) -> None:
        _ip("netns", "add", self._name)
        _ip(
            *("link", "add", self._here, "type", "veth"),
            *("peer", "name", self._there, "netns", self._name),
        )
        _ip("addr", "add", f"{self.host}/30", "dev", self._here)
        _ip("link", "set", self._here, "up")
        _ip("-n", self._name, "addr", "add", f"{self._guest}/30", "dev", self._there)
        self.restore()

    def end(self) -> None:
        """End the network. Its link ends with it."""
        _ip("netns", "delete", self._name)

    def drop(self) -> None:
        """Take the link down. Nobody is told."""
        _ip("-n", self._name, "link", "set", self._there, "down")

    def restore(self) -> None:
        _ip("-n", self._name, "link", "set", self._there, "up")


@contextmanager
def network() -> Iterator[Network]:
    """A network, until the end of the block.

    :raises NoNetwork: where it cannot be made.
    """
    if shutil.which("ip") is None:
        raise NoNetwork("ip (of iproute2) is not installed")
    if os.geteuid() != 0:
        raise NoNetwork("only root can make a network namespace")
    made = Network(os.getpid())
    try:
        made.begin()
    except subprocess.CalledProcessError as error:
        _discard(made)
        raise NoNetwork(f"{error.stderr.strip()}") from error
    try:
        yield made
    finally:
        made.end()


def _discard(made: Network) -> None:
    try:
        made.end()
    except subprocess.CalledProcessError:
        pass  # It was not even begun.


def _ip(*words: str) -> None:
    subprocess.run(
        ["ip", *words], check=True, timeout=_PATIENCE, capture_output=True, text=True
    )
