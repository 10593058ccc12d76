"""What the commands on the ledger have in common: a range of UTC days."""

from argparse import ArgumentParser
from datetime import UTC, date, datetime, time


def add_time_arguments(parser: ArgumentParser) -> None:
    for name, what in (("--from", "first UTC day"), ("--to", "UTC day after the last")):
        parser.add_argument(name, type=date.fromisoformat, help=f"{what}, for example 2026-11-03")


def utc_midnight(day: date | None) -> datetime | None:
    return datetime.combine(day, time.min, UTC) if day else None
