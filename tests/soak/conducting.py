"""One run of the soak, from its beginning to its record.

Here lives what goes on at the same time: a thread reads what each process of clients
tells, one takes samples, one does things to the service. What the figures mean is
decided in ``verdicts``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from tests.servers import HOST, PATIENCE, ROOT, descriptor_limit, faults_in

from .clients import LAST_WAIT
from .network import NoNetwork
from .plan import DROP, ELDER, Plan
from .publishing import Publishers, publishing
from .record import Done, Record, Seen, delays_of
from .sampling import rest, rest_at_last, sample
from .service import Service, service

#: Seconds between two lines that say how it goes.
TELL = 30.0


class Helper:
    """A process that reports in lines of JSON.

    :param take: called with each report, in a thread of its own.
    """

    def __init__(
        self, command: Sequence[str], take: Callable[[dict[str, Any]], None]
    ) -> None:
        pipe = subprocess.PIPE
        self._command = " ".join(command)
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True
        )
        self._take = take
        #: Set when the process has reported.
        self.has_begun = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._take(json.loads(line))
            self.has_begun.set()

    def tell(self, message: object) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{json.dumps(message)}\n")
        self._process.stdin.flush()

    def check(self) -> None:
        """Fail where the process has ended by itself."""
        assert self._process.poll() is None, f"{self._command} has ended"

    def wait(self, timeout: float) -> None:
        self._process.wait(timeout)
        assert not self._process.returncode, f"{self._command} failed"

    def end(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        with suppress(BrokenPipeError):  # The process has failed: its end tells why.
            self._process.stdin.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(PATIENCE)
        self._thread.join(PATIENCE)
        self._process.stdout.close()


class Run:
    """One run while it goes on.

    :param tell: called with lines for whoever watches.
    """

    def __init__(
        self, running: Service, record: Record, tell: Callable[[str], None]
    ) -> None:
        self._service = running
        self._record = record
        self._tell = tell
        self._plan = running.plan
        self._stack = ExitStack()
        self._crowds: list[Helper] = []
        self._firsts: list[tuple[str, str, int]] = []
        self._odd: list[tuple[str, int, int]] = []
        self._is_over = threading.Event()

    def go(self) -> None:
        record, plan = self._record, self._plan
        record.before = rest(self._service)
        record.began = time.monotonic()
        with self._stack:
            helper = [sys.executable, "-m", "tests.soak.echo"]
            self._begin(helper, self._take_echo)
            self._begin_crowds()
            for crowd in self._crowds:
                assert crowd.has_begun.wait(2 * PATIENCE), "no clients come"
            record.began = time.monotonic()
            port = self._service.server.port
            publishers = self._stack.enter_context(publishing(port, plan))
            self._stack.callback(self._is_over.set)
            with ThreadPoolExecutor(3) as pool:
                try:
                    deeds = [
                        pool.submit(self._disturb),
                        pool.submit(self._disturb, DROP),
                    ]
                    tasks = [pool.submit(self._sample, publishers), *deeds]
                    self._watch(tasks, deeds)
                    self._finish(publishers)
                finally:
                    self._is_over.set()
                for task in tasks:
                    task.result()
        record.after = rest_at_last(self._service)

    def _begin(
        self, command: Sequence[str], take: Callable[[dict[str, Any]], None]
    ) -> Helper:
        helper = Helper(command, take)
        self._stack.callback(helper.end)
        return helper

    def _begin_crowds(self) -> None:
        plan, net = self._plan, self._service.net
        outside = 0 if isinstance(net, NoNetwork) else plan.behind_a_network
        self._begin_crowd((), HOST, self._service.server.port, "here", outside)
        if not isinstance(net, NoNetwork):
            others = plan.clients - outside
            port = self._service.outer_port
            self._begin_crowd(net.inside, net.host, port, "elsewhere", others)
        else:
            self._record.skipped[DROP] = str(net)

    def _begin_crowd(
        self, before: Sequence[str], host: str, port: int, name: str, others: int
    ) -> None:
        """Begin a process with all clients but so many others."""
        plan = self._plan
        words = (
            *(host, port, plan.clients - others, name, len(plan.rooms), plan.stay),
            *(plan.heartbeat, plan.seconds),
        )
        command = [*before, sys.executable, "-m", "tests.soak.clients"]
        command += map(str, words)
        take = self._take_seen(name)
        self._crowds.append(self._begin(command, take))

    # What is told

    def _now(self) -> float:
        return time.monotonic() - self._record.began

    def _take_echo(self, report: dict[str, Any]) -> None:
        at = report["at"] - self._record.began
        self._record.echo.append((at, delays_of(report)))

    def _take_seen(self, who: str) -> Callable[[dict[str, Any]], None]:
        def take(report: dict[str, Any]) -> None:
            at = report["at"] - self._record.began
            delays = delays_of(report)
            self._record.seen.append(
                Seen(at, who, report["connected"], report["counts"], delays)
            )
            self._record.wrong += report["wrong"]
            self._firsts += map(tuple, report["firsts"])
            self._odd += map(tuple, report["odd"])

        return take

    # What goes on meanwhile

    def _sample(self, publishers: Publishers) -> None:
        while not self._is_over.wait(self._plan.sample_every):
            sample(self._service, self._record)
            self._record.published.append((self._now(), publishers.count))

    def _disturb(self, only: str | None = None) -> None:
        """Do what the plan says, one deed after the other. That a network is down goes
        on beside the rest."""
        is_spared = False
        for at, name in self._plan.deeds():
            if (name == DROP) != (only == DROP) or name in self._record.skipped:
                continue
            if self._is_over.wait(max(0.0, at - self._now())):
                return
            if self._now() > self._plan.seconds and self._has_done(name):
                continue  # The deeds before took so long. Each kind is done once.
            if not only and not is_spared and at > ELDER * self._plan.seconds:
                is_spared = True
                self._service.spare_one()
                self._record.elder = self._service.elder
            began = self._now()
            what = self._service.do(name)
            self._record.done.append(Done(began, self._now(), name, what))

    def _has_done(self, name: str) -> bool:
        return any(done.name == name for done in self._record.done)

    def _watch(
        self, tasks: Sequence[Future[None]], deeds: Sequence[Future[None]]
    ) -> None:
        """Watch all tasks until the time is over, and all deeds are done."""
        told = 0.0
        while (now := self._now()) < self._plan.seconds or not all(
            task.done() for task in deeds
        ):
            for task in tasks:
                if task.done():
                    task.result()  # It has failed, or has done all.
            for crowd in self._crowds:
                crowd.check()
            if now >= told + TELL:
                told = now
                self._tell(self._state(now))
            time.sleep(0.1)

    def _state(self, now: float) -> str:
        record = self._record
        return (
            f"{now / 60:.1f} min: {record.events:,} events, "
            f"{record.total('deliveries'):,} deliveries, "
            f"{record.total('returns'):,} clients came back, "
            f"{len(record.done)} deeds, {len(record.wrong)} wrong"
        )

    def _finish(self, publishers: Publishers) -> None:
        """Let all come to the end, and judge what only the publishers know."""
        finals = publishers.finish()
        record = self._record
        record.published.append((self._now(), publishers.count))
        for crowd in self._crowds:
            crowd.tell(finals)
        for crowd in self._crowds:
            crowd.wait(LAST_WAIT + PATIENCE)
            crowd.end()
        failed = publishers.failed
        record.failed = len(failed)
        for first in self._firsts:
            if missed := publishers.missed(*first):
                record.wrong.append(f"a newcomer lost {missed}: {first}")
        successes = {what for what in self._odd if what not in failed}
        record.wrong += [f"{what} came out of its turn" for what in successes]


@contextmanager
def _logged(file: Path, record: Record) -> Iterator[ExitStack]:
    """A stack whose end writes what the server has logged, and counts tracebacks."""
    stack = ExitStack()
    try:
        yield stack
    finally:
        with file.open("w") as log, redirect_stdout(log):
            try:
                stack.close()
            except AssertionError:
                pass  # There are tracebacks: the record counts them.
        logged = file.read_text()
        record.tracebacks = faults_in(logged)


def conduct(plan: Plan, folder: Path, tell: Callable[[str], None]) -> Record:
    """Run a plan.

    :param folder: where the server's log is put.
    :param tell: called with lines for whoever watches.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = Record(plan)
    with (
        descriptor_limit(None),
        _logged(folder / "server.log", record) as stack,
    ):
        running = stack.enter_context(service(plan))
        Run(running, record, tell).go()
    return record
