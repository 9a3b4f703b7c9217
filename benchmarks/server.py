"""A server under measurement: how it is started with what it needs, asked, watched and
ended.

What never lives here: which server it is, and what is measured.
"""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from processes import BenchmarkError, process
from usage import Usage, usage

START_SECONDS = 20  # for a server to answer its first request
HTTP_SECONDS = 60  # for an answer: a worker can still be busy with sending
NUDGE_SECONDS = 0.25  # between two events: short enough for some hundred joins
IDLE_SECONDS = 0.5  # a server is idle if it uses at most a tenth of these
LOG_TAIL = 2000  # characters of a failed server's output that are shown


class Server:
    """A running server, with the programs that it needs."""

    def __init__(self, port: int, started: Sequence[subprocess.Popen[bytes]]) -> None:
        self.port = port
        self._started = started

    def usage(self) -> Usage:
        used = [usage(one.pid) for one in self._started]
        return Usage(
            cpu_seconds=sum(one.cpu_seconds for one in used),
            kilobytes=sum(one.kilobytes for one in used),
            threads=sum(one.threads for one in used),
            descriptors=sum(one.descriptors for one in used),
        )

    def request(self, method: str, path: str) -> int:
        """Return the status of the answer."""
        status, _ = self.answer(method, path)
        return status

    def answer(self, method: str, path: str) -> tuple[int, bytes]:
        """Return the status and the body of the answer."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=HTTP_SECONDS
        )
        with contextlib.closing(connection):
            connection.request(method, path, headers={"Connection": "close"})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def wait_until_ready(self) -> None:
        """Wait for an answer, of any status."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._is_running():
            with contextlib.suppress(ConnectionError):
                self.request("GET", "/")
                return
            time.sleep(0.05)
        raise BenchmarkError("the server did not start")

    def _is_running(self) -> bool:
        return all(one.poll() is None for one in self._started)

    @contextmanager
    def nudged(self) -> Iterator[None]:
        """Publish every now and then, for streams that begin with their first event.

        These events have the number 0, which belongs to no round. All of them are
        delivered when this ends.
        """
        over = threading.Event()

        def nudge() -> None:
            while not over.wait(NUDGE_SECONDS):
                with contextlib.suppress(OSError, http.client.HTTPException):
                    self.request("POST", "/publish?first=0&count=1")

        nudger = threading.Thread(target=nudge)
        nudger.start()
        try:
            yield
        finally:
            over.set()
            nudger.join()
        self._wait_until_idle()

    def _wait_until_idle(self) -> None:
        deadline = time.monotonic() + HTTP_SECONDS
        used = IDLE_SECONDS
        while used > IDLE_SECONDS / 10 and time.monotonic() < deadline:
            before = self.usage().cpu_seconds
            time.sleep(IDLE_SECONDS)
            used = self.usage().cpu_seconds - before


@contextmanager
def server(
    commands: Sequence[Sequence[str]], port: int, core: int | None
) -> Iterator[Server]:
    """Run a server. The last command is the server's, the others start what it needs.

    If something fails meanwhile, the error shows what the programs printed.
    """
    with tempfile.TemporaryFile() as log:
        try:
            with contextlib.ExitStack() as stack:
                started = [
                    stack.enter_context(
                        process(command, core=core, stdout=log, stderr=log)
                    )
                    for command in commands
                ]
                running = Server(port, started)
                running.wait_until_ready()
                yield running
        except (BenchmarkError, OSError, http.client.HTTPException) as error:
            log.seek(0)
            printed = log.read().decode(errors="replace")[-LOG_TAIL:]
            raise BenchmarkError(f"{error}; it printed:\n{printed}") from error
