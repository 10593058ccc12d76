"""Move the demonstration's organisation in and fill its past."""

import os
import sys
import time
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from gateway_admin.demo import organisation as tables
from gateway_admin.demo import state
from gateway_admin.demo.backfill import Progress, backfill
from gateway_admin.demo.seed import demo_seed
from gateway_admin.lib.errors import ServiceError

BAR_CELLS = 30
LINE_EVERY_S = 2.0


class Command(BaseCommand):
    help = "Seed the demonstration into an empty installation and back-fill its usage."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--events", type=int, default=tables.EVENTS, help="about how many")
        parser.add_argument("--days", type=int, default=tables.DAYS, help="how far back")
        parser.add_argument(
            "--then-traffic",
            metavar="PROXY_URL",
            help="go on as the live traffic of `up --demo`, through this proxy",
        )

    def handle(self, *args: Any, events: int, days: int, **options: Any) -> None:
        url = state.simulator_url(settings.DATA_DIR)
        try:
            demo_seed(data_dir=settings.DATA_DIR, simulator_url=url)
            self._fill(events, days)
        except ServiceError as error:
            raise CommandError(error.message) from error
        if proxy_url := options["then_traffic"]:
            connection.close()
            sys.stdout.flush()
            command = [sys.executable, "-m", "gateway_admin.demo.traffic"]
            command += ["--data-dir", str(settings.DATA_DIR)]
            command += ["--proxy", proxy_url, "--simulator", url]
            os.execv(sys.executable, command)  # noqa: S606 (ourselves, without Django's memory)
        self._sign_in()

    def _fill(self, events: int, days: int) -> None:
        began = told = time.monotonic()
        for progress in backfill(events=events, days=days):
            now = time.monotonic()
            last = progress.done == progress.days
            if last or now - told > LINE_EVERY_S or self.stdout.isatty():
                told = now
                self._show(progress, last=last, took_s=now - began)

    def _show(self, progress: Progress, *, last: bool, took_s: float) -> None:
        """One line that is rewritten on a terminal; now and then a new one elsewhere."""
        filled = BAR_CELLS * progress.done // progress.days
        bar = "#" * filled + "." * (BAR_CELLS - filled)
        text = f"usage of {progress.days} days [{bar}] {progress.events:,} events, {took_s:.0f} s"
        terminal = self.stdout.isatty()
        self.stdout.write(f"\r{text}" if terminal else text, ending="" if terminal else "\n")
        if last and terminal:
            self.stdout.write("")
        self.stdout.flush()

    def _sign_in(self) -> None:
        stored = state.stored_read(settings.DATA_DIR)
        for login in stored["logins"] if stored else ():
            self.stdout.write(f"{login['role']:<10} {login['email']}  {login['password']}")
