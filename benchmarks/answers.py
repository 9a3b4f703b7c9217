"""What a token of an AI model costs: ``python benchmarks/answers.py``.

Each server in turn sends some answers at once, whose tokens come one after the other
with a pause between them. Each token says when it was made. The clients are in this
process, and read the same clock. How a server is run lives in server.py.
"""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import sys
import time
from dataclasses import dataclass
from statistics import median

from contenders import Contender, gunicorn
from driver import attempt, parser, prepare
from environments import Environment
from lineup import FASTAPI, SSE_STARLETTE, uvicorn
from processes import BenchmarkError, cores, free_port
from report import table
from server import Server, server

ANSWERS = 100  # at once
TOKENS = 1_000  # of each answer
PACED, UNPACED = 0.01, 0.0  # seconds before each token
STAGGER = 0.005  # seconds from one request to the next
STALL = 30.0  # seconds without a byte, after which something counts as lost
RECEIVE = 1 << 16

TOKEN = re.compile(rb"data: ?([0-9]+) ([0-9]+)\r?\n")


@dataclass(frozen=True)
class Speaker:
    """A server that makes tokens, and the path where it does."""

    contender: Contender
    path: str
    environment: Environment | None = None


def _gevent(name: str, app: str, path: str, notes: str) -> Speaker:
    command = gunicorn(app, "--worker-class=gevent")
    return Speaker(Contender(name, command, f"{notes}, gunicorn gevent"), path)


_ALL = (
    _gevent("bare-wsgi", "tokens_bare:app", "/tokens", "a generator of bytes"),
    _gevent("ours-stream", "tokens_ours:app", "/tokens", "EventStream"),
    _gevent("ours-run", "tokens_ours:app", "/run", "sse.run"),
    Speaker(
        Contender(
            "sse-starlette", uvicorn("tokens_sse_starlette:app", SSE_STARLETTE), ""
        ),
        "/tokens",
        SSE_STARLETTE,
    ),
    Speaker(
        Contender("fastapi", uvicorn("tokens_fastapi:app", FASTAPI), ""),
        "/tokens",
        FASTAPI,
    ),
)
SPEAKERS = {speaker.contender.name: speaker for speaker in _ALL}


class Listener:
    """The client of one answer: it checks the tokens, and times the first one."""

    def __init__(self, port: int, path: str, tokens: int, pause: float) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        target = f"{path}?count={tokens}&pause={pause}"
        request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        self.socket.sendall(request.encode())
        self.first_ms = 0.0
        self._tokens = tokens
        self._next = 0
        self._rest = b""

    def take(self) -> bool:
        """Take what has come.

        :returns: whether the answer is complete.
        """
        received = self.socket.recv(RECEIVE)
        now = time.monotonic_ns()
        if not received:
            raise BenchmarkError(f"an answer ended at its token {self._next}")
        self._rest += received
        end = 0
        for match in TOKEN.finditer(self._rest):
            end = match.end()
            number, made = int(match[1]), int(match[2])
            if number != self._next:
                raise BenchmarkError(f"token {number} in place of {self._next}")
            if number == 0:
                self.first_ms = (now - made) / 1e6
            self._next += 1
        self._rest = self._rest[end:]
        return self._next == self._tokens


def listen(
    port: int, path: str, answers: int, tokens: int, pause: float
) -> list[float]:
    """Take some answers at once.

    :returns: for each answer, milliseconds from the making of its first token to the
        token's arrival.
    """
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        listeners: list[Listener] = []
        due = time.monotonic()
        while len(listeners) < answers or selector.get_map():
            wait = STALL
            if len(listeners) < answers:
                wait = due - time.monotonic()
                if wait <= 0:
                    # One by one: a request must not wait for others.
                    due += STAGGER
                    listener = Listener(port, path, tokens, pause)
                    listeners.append(listener)
                    stack.enter_context(listener.socket)
                    selector.register(listener.socket, selectors.EVENT_READ, listener)
                    continue
            ready = selector.select(wait)
            if not ready and wait == STALL:
                raise BenchmarkError("nothing more comes")
            for key, _ in ready:
                if key.data.take():
                    selector.unregister(key.fileobj)
        return [listener.first_ms for listener in listeners]


@dataclass(frozen=True)
class Spoken:
    """The server's CPU per token, with a pause before each and without, and how late
    the first tokens of answers arrived."""

    paced_us: float
    unpaced_us: float
    first_ms: float


def speak(running: Server, speaker: Speaker, answers: int) -> Spoken:
    """Run a round."""

    unpaced_us, _ = token_us(running, speaker.path, answers, UNPACED)
    paced_us, late = token_us(running, speaker.path, answers, PACED)
    return Spoken(paced_us, unpaced_us, median(late))


def token_us(
    running: Server, path: str, answers: int, pause: float
) -> tuple[float, list[float]]:
    """Take some answers at once.

    :returns: µs of the server's CPU per token, and what ``listen`` returns.
    """
    before = running.usage().cpu_seconds
    late = listen(running.port, path, answers, TOKENS, pause)
    used = running.usage().cpu_seconds - before
    return used / (answers * TOKENS) * 1e6, late


def measure(speaker: Speaker, answers: int, rounds: int) -> Spoken:
    """The medians of some rounds. A round before them is not counted."""
    if speaker.environment:
        speaker.environment.prepare()
    core, _ = cores()
    port = free_port()
    commands = speaker.contender.command_lines(port=port, connections=answers)
    with server(commands, port, core) as running:
        listen(port, speaker.path, answers, 10, PACED)
        done = [speak(running, speaker, answers) for _ in range(rounds)]
    return Spoken(
        median(one.paced_us for one in done),
        median(one.unpaced_us for one in done),
        median(one.first_ms for one in done),
    )


def main() -> int:
    options = parser("Compare what tokens cost.", subscribers=ANSWERS, rounds=3)
    options.add_argument("--only", nargs="+", choices=SPEAKERS, default=list(SPEAKERS))
    chosen = options.parse()
    prepare(chosen.subscribers)
    rows = []

    def take(name: str) -> None:
        speaker = SPEAKERS[name]
        spoken = measure(speaker, chosen.subscribers, chosen.rounds)
        figures = (spoken.paced_us, spoken.unpaced_us)
        late = f"{spoken.first_ms:.2f}"
        texts = [f"{figure:.1f}" for figure in figures]
        rows.append([name, *texts, late, speaker.contender.notes])

    failures = attempt("measuring", chosen.only, take)
    title = f"{chosen.subscribers} answers of {TOKENS:,} tokens at once"
    columns = ["server", "µs every 10 ms", "µs at once", "first token ms", "notes"]
    print(table(title, columns, rows))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
