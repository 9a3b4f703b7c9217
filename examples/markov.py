"""A language model small enough to ship: a Markov chain over one text, ``rivers.txt``.

The same prompt always gets the same answer.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

Pair = tuple[str, str]


def speech(prompt: str, sentences: int = 4) -> Iterator[str]:
    """What the chain says, a word at a time, each with the space before it.

    :param prompt: the chain begins with a sentence whose first words have one of these,
        if there is one.
    """
    beginnings, followers = chain()
    chance = random.Random(prompt)
    asked = set(re.findall(r"\w{4,}", prompt.lower()))
    fitting = [p for p in beginnings if asked & set("".join(p).lower().split())]
    pair = chance.choice(fitting or beginnings)
    yield pair[0].lstrip()
    yield pair[1]
    while sentences:
        word = chance.choice(followers[pair])
        yield word
        pair = (pair[1], word)
        sentences -= word.endswith(".")


@cache
def chain() -> tuple[list[Pair], dict[Pair, list[str]]]:
    """The pairs of words that sentences begin with, and what follows each pair."""
    text = Path(__file__).with_name("rivers.txt").read_text("utf-8")
    words = [f" {word}" for word in text.split()]
    # The text is a circle: after its end comes its beginning.
    triples = zip(words, words[1:] + words[:1], words[2:] + words[:2], strict=True)
    beginnings: list[Pair] = []
    followers: dict[Pair, list[str]] = {}
    for before, first, second in triples:
        followers.setdefault((before, first), []).append(second)
        if before.endswith("."):
            beginnings.append((first, second))
    return beginnings, followers
