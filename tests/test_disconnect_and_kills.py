"""Workers are killed while members are thrown out: who is out gets nothing, and nobody
else loses anything."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest

from flask_sse_lite import Event

from . import IS_LONG
from .members import Opened, World
from .redis_servers import redis_server
from .servers import HOST, PATIENCE, Client, Server, serve, several, until

KINDS = ["gunicorn gthread"]
if IS_LONG:
    KINDS += ["gunicorn sync", "gunicorn gevent"]

#: Random steps of each test: 10,000 on each broker where there is time.
STEPS = 3_500 if IS_LONG else 600

WORKERS = 4


class Workers:
    """Workers of gunicorn, which can be killed: see ``members.Service``."""

    def __init__(self, server: Server, bans: Path) -> None:
        self._server = server
        self._bans = bans
        #: A worker to be killed while the next request goes on.
        self.doomed: int | None = None

    def publish(self, text: str) -> str | None:
        return self._publish("/publish", text)

    def disconnect(self, user: str, text: str) -> str | None:
        return self._publish(f"/expel/{user}", text)

    def _publish(self, target: str, text: str) -> str:
        connection = HTTPConnection(HOST, self._server.port, timeout=PATIENCE)
        with closing(connection):
            body = json.dumps([{"data": text, "channel": "room"}])
            headers = {"Content-Type": "application/json", "Connection": "close"}
            connection.request("POST", target, body, headers)
            self._kill()
            answer = connection.getresponse()
            assert answer.status == 200
            (id,) = json.loads(answer.read())
            return str(id)

    def _kill(self) -> None:
        doomed, self.doomed = self.doomed, None
        if doomed:
            with suppress(ProcessLookupError):  # It was killed before.
                os.kill(doomed, signal.SIGKILL)

    def listen(self, user: str, since: str) -> Opened | None:
        client = Client(self._server.port)
        headers = {"X-User": user}
        if since:
            headers["Last-Event-ID"] = since
        try:
            client.request("/room/room", headers=headers)
        except BaseException:
            client.leave()
            raise
        finally:
            self._kill()
        if client.status != 200:
            assert client.status == 403
            client.leave()
            return None
        return Opened(
            events_of(client),
            lambda: shut(client.socket),
            client.headers["x-process"],
        )

    def forbid(self, user: str) -> None:
        Path(self._bans, user).touch()

    def admit(self, user: str) -> None:
        Path(self._bans, user).unlink(missing_ok=True)


def events_of(client: Client) -> Iterator[Event]:
    with client:
        yield from client.events


def shut(connection: socket.socket) -> None:
    with suppress(OSError):  # Its end was read before.
        connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("broker", ["sqlite", "redis"])
def test_whoever_is_killed_who_is_out_gets_nothing_and_others_everything(
    broker: str, kind: str, tmp_path: Path
) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    with ExitStack() as stack:
        if broker == "sqlite":
            url = f"sqlite:///{tmp_path}/events.db"
        else:
            url = stack.enter_context(redis_server()).url
        server = stack.enter_context(
            serve(
                kind,
                app="tests.applications.members:app",
                options=several(kind, WORKERS),
                SSE_URL=url,
                SSE_HISTORY=100_000,
                BANS=str(tmp_path),
            )
        )
        workers = Workers(server, tmp_path)

        def kill() -> None:
            """Kill a worker while some request goes on. All of its streams are cut."""
            until(server.workers)
            victim = world.random.choice(server.workers())
            workers.doomed = victim
            world.random.choice([world.publish, world.connect, world.disconnect])()
            mine = [s for s in world.streams if s.process == str(victim)]
            until(lambda: all(stream.is_over for stream in mine))

        world = World(workers, seed)
        world.steps |= {kill: 4, world.resume: 6}
        stack.callback(world.close)
        world.run(STEPS)
        world.end()
        world.check()
        assert any(stream.is_cut and not stream.has_left for stream in world.over)
