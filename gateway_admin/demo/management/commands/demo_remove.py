"""Take the demonstration out again."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from gateway_admin.demo.removal import demo_remove
from gateway_admin.lib.errors import ServiceError


class Command(BaseCommand):
    help = "Remove everything that the demonstration made; real data stays."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--yes", action="store_true", help="do not ask")

    def handle(self, *args: Any, **options: Any) -> None:
        if not options["yes"]:
            answer = input("Remove the demonstration with all of its people and usage? [y/N] ")
            if answer.strip().lower() not in {"y", "yes"}:
                raise CommandError("Nothing was removed.")
        try:
            removed = demo_remove(data_dir=settings.DATA_DIR, actor=None)
        except ServiceError as error:
            raise CommandError(error.message) from error
        self.stdout.write(
            f"Removed {removed.events:,} usage events, {removed.keys} keys, "
            f"{removed.people} people. Audit trail and revisions stay as history."
        )
        for name in removed.unpublished:
            self.stdout.write(f"{name} has edits that wait for a publish: review and publish them.")
