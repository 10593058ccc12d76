"""Starts everything in order, keeps it running, stops it in reverse order.

1. embedded servers, and at once the proxies that already have their identity (they import
   LiteLLM for seconds and serve from their last good state meanwhile)
2. migrations, prices, administrator, identities
3. web, the remaining proxies, then worker and beat, which nobody waits for
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from django.conf import settings

from gateway_admin.supervisor import plan
from gateway_admin.supervisor.bootstrap import bootstrap, fleet_file, fleet_files_write
from gateway_admin.supervisor.console import Console
from gateway_admin.supervisor.embedded import EmbeddedPostgres, EmbeddedValkey
from gateway_admin.supervisor.errors import StartError
from gateway_admin.supervisor.probes import database_error, local_url, redis_error
from gateway_admin.supervisor.process import Child, ChildSpec, Reaper

SERVERS_READY_S = 90.0
EXTERNAL_PATIENCE_S = 5.0
IMPATIENT_AFTER_S = 1.0
SITE_FIRST_S = 20.0  # worker and beat leave the processors to web and proxy for so long


class Supervisor:
    def __init__(
        self,
        *,
        data_dir: Path,
        lock_descriptor: int,
        postgres: EmbeddedPostgres | None,
        valkey: EmbeddedValkey | None,
        extra: list[ChildSpec],
        demo: Callable[[], list[str]] | None = None,
    ) -> None:
        """`demo` runs after the migrations and returns lines to greet with."""
        self.data_dir = data_dir
        self.postgres = postgres
        self.valkey = valkey
        self.extra = extra
        self.demo = demo
        self.console = Console()
        self.reaper = Reaper(lock_descriptor)
        self.children: dict[str, Child] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stop = asyncio.Event()
        self._began = time.monotonic()
        self._stop_asked = 0.0

    async def run(self) -> None:
        """Until a signal asks to stop, or raise StartError."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._asked_to_stop, number)
        await self.reaper.start()
        starting = asyncio.create_task(self._start())
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                await self._until_stopped(stopping)
        finally:
            starting.cancel()
            stopping.cancel()
            with contextlib.suppress(asyncio.CancelledError, StartError):
                await starting
            await self._stop_all()
            await self.reaper.close()

    async def _until_stopped(self, stopping: "asyncio.Task[bool]") -> None:
        """A task that fails is a fault of ours and ends everything; a crashed child does not."""
        await asyncio.wait({stopping, *self._tasks.values()}, return_when=asyncio.FIRST_COMPLETED)
        for task in self._tasks.values():
            if task.done() and not self._stop.is_set():
                task.result()

    def _asked_to_stop(self, number: int) -> None:
        """Ctrl-C once more kills. Not at once: make passes on what its group got already."""
        if not self._stop.is_set():
            self._stop.set()
            self._stop_asked = time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._stop_asked > IMPATIENT_AFTER_S:
            self.console.say("asked again: killing what still runs")
            for child in self.children.values():
                child.kill()

    async def _start(self) -> None:
        servers = [self._launch(spec) for spec in plan.servers(self.postgres, self.valkey)]
        proxies = {proxy.name: proxy for proxy in plan.proxies(self.data_dir)}
        for slug in settings.PROXY_ENVIRONMENTS:
            if fleet_file(slug).exists():
                self._launch(proxies[plan.proxy_name(slug)])
        for server in servers:
            await self._ready_or_fail(server)
        await self._require_external_servers()
        link = await asyncio.to_thread(bootstrap, os.environ)
        welcome = await asyncio.to_thread(self.demo) if self.demo else []
        changed = await asyncio.to_thread(fleet_files_write)
        site = plan.site(self.data_dir)
        web = self._launch(site[plan.WEB])
        for slug in changed:
            if running := self.children.get(plan.proxy_name(slug)):
                await running.restart()
        for name, spec in proxies.items():
            if name not in self.children:
                self._launch(spec)
        await web.ready.wait()
        self._greet(link, welcome)
        await self._proxies_ready()
        for spec in (site[plan.WORKER], site[plan.BEAT], *self.extra):
            self._launch(spec)
        await self.children[plan.WORKER].ready.wait()
        self.console.say(f"all processes are ready ({self._elapsed()})")

    def _launch(self, spec: ChildSpec) -> Child:
        child = Child(spec, self.console, self.reaper)
        self.children[spec.name] = child
        self._tasks[spec.name] = asyncio.create_task(child.run())
        return child

    async def _ready_or_fail(self, child: Child) -> None:
        """A server that ends before it was ever ready will not get better by itself."""
        ready = asyncio.create_task(child.ready.wait())
        deadline = time.monotonic() + SERVERS_READY_S
        try:
            while not ready.done():
                task = self._tasks[child.spec.name]
                await asyncio.wait({ready, task}, timeout=0.2, return_when="FIRST_COMPLETED")
                if task.done():
                    task.result()
                if child.ends or time.monotonic() > deadline:
                    raise StartError(f"{child.spec.name} does not start: {child.last_line}")
        finally:
            ready.cancel()

    async def _require_external_servers(self) -> None:
        checks: list[tuple[str, Callable[[str], str | None], str]] = []
        if self.postgres is None:
            checks.append(("DATABASE_URL", database_error, settings.DATABASE_URL))
        if self.valkey is None:
            checks.append(("REDIS_URL", redis_error, settings.REDIS_URL))
        for setting, check, url in checks:
            deadline = time.monotonic() + EXTERNAL_PATIENCE_S
            while error := await asyncio.to_thread(check, url):
                if time.monotonic() > deadline:
                    raise StartError(f"The server of {setting} cannot be used: {error}")
                await asyncio.sleep(0.5)

    async def _proxies_ready(self) -> None:
        """Say when each proxy answers; give up waiting, not the proxy, after a while."""
        deadline = time.monotonic() + SITE_FIRST_S
        for offset, slug in enumerate(settings.PROXY_ENVIRONMENTS):
            child = self.children[plan.proxy_name(slug)]
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(child.ready.wait(), max(0.1, deadline - time.monotonic()))
                url = local_url(settings.PROXY_HOST, settings.PROXY_PORT + offset)
                self.console.say(f"proxy of {slug} answers at {url} ({self._elapsed()})")

    def _greet(self, link: str | None, welcome: list[str]) -> None:
        self.console.say(f"Gateway Admin is up at {settings.PUBLIC_URL} ({self._elapsed()})")
        for line in welcome:
            self.console.say(line)
        if link is not None and not welcome:  # the demonstration brings its administrator
            self.console.say("There is no administrator yet. Open this one-time link to set up:")
            self.console.say(f"    {link}")

    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._began:.1f} s"

    async def _stop_all(self) -> None:
        stages = sorted({child.spec.stage for child in self.children.values()}, reverse=True)
        if self.children:
            self.console.say("stopping")
        for stage in stages:
            members = [child for child in self.children.values() if child.spec.stage == stage]
            await asyncio.gather(*(child.stop() for child in members))
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        if self.children:
            self.console.say("stopped")
