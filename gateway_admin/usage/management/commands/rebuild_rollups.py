"""`manage.py rebuild_rollups [--from DATE] [--to DATE]`: recompute rollups from the ledger."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from gateway_admin.usage import rollups
from gateway_admin.usage.management.times import add_time_arguments, utc_midnight


class Command(BaseCommand):
    help = "Recompute hourly and daily rollups from the ledger of usage events."

    def add_arguments(self, parser: CommandParser) -> None:
        add_time_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        done = 0
        for day in rollups.rebuild(
            start=utc_midnight(options["from"]), end=utc_midnight(options["to"])
        ):
            done += 1
            if options["verbosity"] > 1:
                self.stdout.write(f"{day}")
        self.stdout.write(f"Rebuilt {done} days.")
