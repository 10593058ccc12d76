"""`manage.py check_ledger [--from DATE] [--to DATE]`: rollups equal the ledger, or exit 1."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from gateway_admin.usage.checks import differences
from gateway_admin.usage.management.times import add_time_arguments, utc_midnight


class Command(BaseCommand):
    help = "Compare the rollups with the ledger of usage events."

    def add_arguments(self, parser: CommandParser) -> None:
        add_time_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        found = differences(start=utc_midnight(options["from"]), end=utc_midnight(options["to"]))
        for difference in found:
            self.stderr.write(
                f"{difference.table}: {difference.missing} rows missing or wrong,"
                f" {difference.surplus} surplus"
            )
        if found:
            raise CommandError("The rollups differ; run manage.py rebuild_rollups.")
        self.stdout.write("The rollups equal the ledger.")
