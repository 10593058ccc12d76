"""A seeded demonstration for the tests of this area."""

from pathlib import Path
from typing import Any

from django.db import connection

from gateway_admin.catalog.prices import price_book_load
from gateway_admin.demo.backfill import backfill
from gateway_admin.demo.seed import demo_seed

SIMULATOR_URL = "http://127.0.0.1:4999"


def seed(data_dir: Path, url: str = SIMULATOR_URL) -> bool:
    price_book_load()
    return demo_seed(data_dir=data_dir, simulator_url=url)


def fill(*, events: int, days: int = 60) -> None:
    for _ in backfill(events=events, days=days):
        pass


def select(query: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows
