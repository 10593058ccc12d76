"""`manage.py rebuild_counters [--environment SLUG] [--anew]`: budgets' counters from the ledger."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from gateway_admin.catalog.models import Environment
from gateway_admin.usage.counter_store import CountersAway
from gateway_admin.usage.counters import Outcome, counters_rebuild, counters_repair
from proxy.contract.counters import dollars


class Command(BaseCommand):
    help = "Compare the budgets' counters in Redis with the ledger and correct them."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--environment", help="slug; without it all environments")
        parser.add_argument(
            "--anew", action="store_true", help="forget the counters and build them as new ones"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        environments = Environment.objects.order_by("slug")
        if slug := options["environment"]:
            environments = environments.filter(slug=slug)
            if not environments:
                raise CommandError(f"There is no environment {slug!r}.")
        work = counters_rebuild if options["anew"] else counters_repair
        for environment in environments:
            try:
                outcome = work(environment=environment)
            except CountersAway as error:
                raise CommandError(f"Redis cannot be used: {error}. Nothing is lost.") from error
            self.stdout.write(f"{environment.slug}: {_words(outcome)}")


def _words(outcome: Outcome) -> str:
    if outcome.built:
        return f"built {outcome.counters} counters from the ledger"
    if not outcome.corrections:
        return f"{outcome.counters} counters, all as the ledger says"
    return (
        f"corrected {len(outcome.corrections)} of {outcome.counters} counters,"
        f" ${dollars(outcome.drift_nano):f} in all"
    )
