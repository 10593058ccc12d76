"""Load the price book of the installed litellm."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from gateway_admin.catalog.prices import book_version, price_book_load


class Command(BaseCommand):
    help = "Load unit prices from the table that the installed litellm bundles."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--force", action="store_true", help="load even if this version is loaded already"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        written = price_book_load(force=options["force"])
        if written:
            self.stdout.write(f"Loaded {written:,} prices of {book_version()}.")
        else:
            self.stdout.write(f"The prices of {book_version()} are loaded already.")
