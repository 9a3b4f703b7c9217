"""The service that is soaked, gunicorn's gevent workers and a Redis, and what is done
to it.

When something is done is the plan's affair. Each deed returns in words what was done.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from tests.redis_servers import PERSISTENT, RedisServer, redis_server
from tests.servers import PATIENCE, Server, reserved_port, serve, several, until

from .network import Network, NoNetwork, network
from .plan import DROP, KILL, REPLACE, RESTART, Plan

#: Milliseconds after which a browser would come back.
RETRY = 500

#: Seconds within which workers are there again.
SLOWEST_START = 4 * PATIENCE


class Service:
    """The service while it runs. One thread does things to it; any thread can look.

    :param net: the network of some clients, or why there is none.
    :param outer_port: the port on which that network reaches the service.
    """

    def __init__(
        self,
        plan: Plan,
        server: Server,
        redis: RedisServer,
        net: Network | NoNetwork,
        outer_port: int,
    ) -> None:
        self.plan = plan
        self.server = server
        self.redis = redis
        self.net = net
        self.outer_port = outer_port
        #: The worker that is spared, from some time on.
        self.elder: int | None = None
        self._chance = random.Random(plan.seed)
        self._deeds: dict[str, Callable[[], str]] = {
            KILL: self._kill,
            REPLACE: self._replace,
            RESTART: self._restart,
            DROP: self._drop,
        }

    def do(self, name: str) -> str:
        return self._deeds[name]()

    def spare_one(self) -> None:
        self.elder = min(self.server.workers())

    def _kill(self) -> str:
        workers = [w for w in self.server.workers() if w != self.elder]
        process = self._chance.choice(workers)
        os.kill(process, signal.SIGKILL)
        until(lambda: self._is_replaced(process), SLOWEST_START)
        return f"the worker {process}"

    def _is_replaced(self, process: int) -> bool:
        running = self.server.workers()
        return process not in running and len(running) >= self.plan.workers

    def _replace(self) -> str:
        self.elder = None
        before = {*self.server.workers()}
        self.server.signal(signal.SIGHUP)
        until(lambda: before.isdisjoint(self.server.workers()), SLOWEST_START)
        return f"{len(before)} workers"

    def _restart(self) -> str:
        began = time.monotonic()
        self.redis.stop()
        time.sleep(self._chance.uniform(0.2, 2.0))
        self.redis.start()
        return f"away for {time.monotonic() - began:.1f} s"

    def _drop(self) -> str:
        if isinstance(self.net, NoNetwork):
            return ""
        self.net.drop()
        try:
            time.sleep(self.plan.down)
        finally:
            self.net.restore()
        return f"{self.plan.behind_a_network} clients, {self.plan.down:g} s"


@contextmanager
def service(plan: Plan) -> Iterator[Service]:
    """The service, until the end of the block."""
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server(*PERSISTENT))
        net: Network | NoNetwork
        options = several("gunicorn gevent", plan.workers)
        outer_port = 0
        try:
            net = stack.enter_context(network())
            outer_port = stack.enter_context(reserved_port())
            options += f" --bind {net.host}:{outer_port}"
        except NoNetwork as error:
            net = error
        server = stack.enter_context(
            serve(
                "gunicorn gevent",
                app="tests.applications.soaked:app",
                options=options,
                SSE_URL=redis.url,
                SSE_HEARTBEAT=plan.heartbeat,
                SSE_RETRY=RETRY,
            )
        )
        until(lambda: len(server.workers()) == plan.workers, SLOWEST_START)
        yield Service(plan, server, redis, net, outer_port)
