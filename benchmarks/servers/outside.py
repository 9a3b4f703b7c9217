"""Publishes from outside any server: ``outside.py URL FIRST COUNT CHANNEL…``.

With a COUNT of 0 it publishes until its process is ended.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import count

from stamped import stamped

from flask_sse_lite import Publisher


def main(url: str, first: int, number: int, channels: list[str]) -> None:
    numbers: Iterable[int] = range(first, first + number) if number else count(first)
    with Publisher.from_url(url) as publisher:
        for seq in numbers:
            publisher.publish(stamped(seq), channel=channels)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
