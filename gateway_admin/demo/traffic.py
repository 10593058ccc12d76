"""Live traffic of the demonstration: invented programs that call the real proxy.

    python -m gateway_admin.demo.traffic --data-dir .gateway --proxy URL --simulator URL

Needs neither Django nor the database: virtual keys come from the demonstration's file,
requests go the way that everybody's go. At most MAX_IN_FLIGHT at a time; while the proxy is
away it waits ever longer instead of calling; when the file is gone (the demonstration was
removed) it stays quiet.
"""

import argparse
import asyncio
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import httpx

from gateway_admin.demo import organisation as tables
from gateway_admin.demo import state
from gateway_admin.demo.profiles import HOURS, key_weights
from gateway_admin.demo.requests import Call, draw_call
from gateway_admin.demo.rules import simulator_rules

REQUESTS_PER_S = 1.2  # in the busiest hour
QUIETEST = 0.35  # share of it in the quietest
MAX_IN_FLIGHT = 16
TIMEOUT_S = 60.0
LONGEST_PAUSE_S = 30.0
REPORT_EVERY_S = 60.0
LOOK_EVERY_S = 5.0  # for the keys and the simulator's rules


class Traffic:
    def __init__(self, *, data_dir: Path, proxy: str, simulator: str) -> None:
        self._data_dir = data_dir
        self._proxy = proxy
        self._simulator = simulator
        self._draw = Random()  # the present need not be repeatable
        self._keys: list[tuple[tables.KeyRow, str]] = []
        self._weights: list[float] = []
        self._calls: set[asyncio.Task[None]] = set()
        self._counts: Counter[str] = Counter()
        self._waiting = False

    async def run(self) -> None:
        """For ever."""
        limits = httpx.Limits(max_connections=MAX_IN_FLIGHT)
        async with httpx.AsyncClient(
            base_url=self._proxy, timeout=TIMEOUT_S, limits=limits, trust_env=False
        ) as client:
            await self._back_off()
            looked = reported = 0.0
            while True:
                now = time.monotonic()
                if now - looked > LOOK_EVERY_S:
                    looked = now
                    self._read_keys()
                    await self._script()
                if now - reported > REPORT_EVERY_S:
                    reported = now
                    self._report()
                if self._keys and not self._waiting and len(self._calls) < MAX_IN_FLIGHT:
                    self._start(client)
                await asyncio.sleep(self._wait_s())

    def _read_keys(self) -> None:
        stored = state.stored_read(self._data_dir)
        if stored is None:
            if self._keys:
                say("the demonstration was removed: no more traffic")
            self._keys = []
            return
        rows = {row.name: row for row in tables.KEYS}
        ranks = dict(zip(rows, key_weights(tables.KEYS), strict=True))
        self._keys = [
            (rows[key["name"]], key["secret"])
            for key in stored["keys"]
            if key["environment"] == tables.MAIN and key["name"] in rows
        ]
        self._weights = [ranks[row.name] for row, _ in self._keys]

    async def _script(self) -> None:
        """Give the simulator its rules; one that was started again has forgotten them."""
        async with httpx.AsyncClient(
            base_url=self._simulator, timeout=5.0, trust_env=False
        ) as client:
            try:
                answer = await client.get("/__control")
                if not answer.json()["rules"]:
                    rules = {"seed": self._draw.randrange(10**6), "rules": simulator_rules()}
                    (await client.post("/__control", json=rules)).raise_for_status()
            except httpx.TransportError:
                self._counts["simulator away"] += 1  # reported with the others

    def _start(self, client: httpx.AsyncClient) -> None:
        row, secret = self._draw.choices(self._keys, self._weights)[0]
        task = asyncio.create_task(self._call(client, draw_call(self._draw, row), secret))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _call(self, client: httpx.AsyncClient, call: Call, secret: str) -> None:
        headers = {"authorization": f"Bearer {secret}", **call.headers}
        try:
            async with client.stream("POST", call.path, json=call.body, headers=headers) as answer:
                chunks = 0
                async for _ in answer.aiter_raw():
                    chunks += 1
                    if call.abort_after is not None and chunks > call.abort_after:
                        self._counts["aborted"] += 1
                        return
            self._counts["answered" if answer.status_code < 400 else "failed"] += 1
            if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
                await self._back_off()  # it starts, or a provider was overloaded
        except httpx.ConnectError:
            await self._back_off()
        except httpx.HTTPError:
            self._counts["broken off"] += 1

    async def _back_off(self) -> None:
        """Unless the proxy is ready: one waits for all, ever longer, then they go on."""
        if self._waiting:
            return
        self._waiting = True
        pause_s = 0.0
        async with httpx.AsyncClient(timeout=5.0, trust_env=False) as client:
            while not await _is_ready(client, self._proxy):
                if not pause_s:
                    say(f"the proxy at {self._proxy} is not ready: waiting")
                pause_s = min(max(1.0, pause_s * 2), LONGEST_PAUSE_S)
                await asyncio.sleep(pause_s)
        if pause_s:
            say("the proxy is ready")
        self._waiting = False

    def _wait_s(self) -> float:
        if not self._keys or self._waiting:
            return 1.0
        hours = HOURS["service"]
        busy = QUIETEST + (1 - QUIETEST) * hours[datetime.now(UTC).hour] / max(hours)
        return min(self._draw.expovariate(REQUESTS_PER_S * busy), LOOK_EVERY_S)

    def _report(self) -> None:
        if self._counts:
            said = ", ".join(f"{number} {what}" for what, number in sorted(self._counts.items()))
            say(f"requests of the last minute: {said}")
        self._counts.clear()


async def _is_ready(client: httpx.AsyncClient, proxy: str) -> bool:
    try:
        return (await client.get(f"{proxy}/ready")).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description="Live traffic of the demonstration.")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--proxy", required=True, help="address of the proxy")
    parser.add_argument("--simulator", required=True, help="address of the simulator")
    options = parser.parse_args()
    traffic = Traffic(data_dir=options.data_dir, proxy=options.proxy, simulator=options.simulator)
    asyncio.run(traffic.run())


if __name__ == "__main__":
    main()
