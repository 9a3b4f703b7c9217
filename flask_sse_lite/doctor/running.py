"""Running: a server of this machine, and the options that it was given.

Here lives how an option is found among the words of a command line, which all servers
write alike. How a server is found, and what its options do, is unknown here.
"""

from __future__ import annotations

from typing import NamedTuple


def option(words: tuple[str, ...], *names: str) -> str:
    """The value of the last of these options; ``"yes"`` where it has none; empty where
    it is not given."""
    found = ""
    for word, following in zip(words, [*words[1:], ""], strict=False):
        name, equals, value = word.partition("=")
        if name in names:
            bare = "yes" if following.startswith("-") else following or "yes"
            found = value if equals else bare
        elif len(word) > 2 and word[:2] in names and not word.startswith("--"):
            found = word[2:]
    return found


def options(words: tuple[str, ...], *names: str) -> list[str]:
    """The values of all of these options, in their order."""
    pairs = zip(words, [*words[1:], ""], strict=False)
    found = (option(pair, *names) for pair in pairs if pair[0][:1] == "-")
    return [value for value in found if value]


class Running(NamedTuple):
    """A server: its master process, how many processes it has started, its options, the
    limit on its open files, if that is known, and what says options beside its command
    line. A gunicorn that does not run yet has the process 0."""

    name: str
    pid: int
    workers: int
    words: tuple[str, ...]
    limit: int | None
    sources: tuple[str, ...] = ()

    def option(self, *names: str) -> str:
        """See the function of that name."""
        return option(self.words, *names)

    @property
    def how(self) -> str:
        """How its options are known."""
        found = ""
        if self.pid:
            found = (
                f"The process {self.pid} is {self.name}, with {self.workers} others. "
            )
        if self.sources:
            found += f"gunicorn is told so by {' and '.join(self.sources)}."
        return found.strip()
