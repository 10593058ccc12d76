"""Balances and headroom from real counters, from what was stored last, and from nothing."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone

from gateway_admin.catalog.models import Environment
from gateway_admin.keys import live
from gateway_admin.keys.balances import Balance, balance_of, balances_of
from gateway_admin.keys.block_services import customer_create
from gateway_admin.keys.budget_services import override_grant
from gateway_admin.keys.headroom import headroom_of
from gateway_admin.keys.models import Budget, BudgetBalance
from gateway_admin.keys.subjects import Subject
from proxy.contract import counters
from tests.keys.rules import budget, limit, subject
from tests.people import People

pytestmark = pytest.mark.django_db
BILLION = 1_000_000_000


@pytest.fixture
def built(valkey: Any) -> None:
    valkey.set(counters.epoch_key("prod"), "e1")


@pytest.fixture
def redis_away(settings: Any) -> Iterator[None]:
    live._client.cache_clear()
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    yield
    live._client.cache_clear()


def counter(found: Budget, of: Subject, balance: Balance) -> str:
    name = counters.counter_name(str(found.pk), of.counter_ref, balance.period.id)
    return counters.budget_key("prod", name)


@pytest.mark.usefixtures("built")
class TestLive:
    def test_spent_held_and_remaining(self, people: People, prod: Environment, valkey: Any) -> None:
        of = subject(prod, people.search)
        found = budget(people.admin, of, soft_percent=[50])
        valkey.hset(
            counter(found, of, balance_of(found, of)),
            mapping={"s": 6 * BILLION + 1, "h": BILLION, "p": 5},
        )
        balance = balance_of(found, of)
        assert (balance.spent, balance.held) == (Decimal("6.000000001"), Decimal(1))
        assert balance.remaining == Decimal("2.999999999")
        assert (balance.state, balance.as_of, balance.soft) == ("warning", None, Decimal(5))
        assert balance.resets_at is not None

    def test_what_was_never_used_is_zero(self, people: People, prod: Environment) -> None:
        of = subject(prod, people.search)
        balance = balance_of(budget(people.admin, of), of)
        assert (balance.spent, balance.held, balance.state) == (Decimal(0), Decimal(0), "ok")

    def test_holds_alone_can_exhaust(self, people: People, prod: Environment, valkey: Any) -> None:
        of = subject(prod, people.search)
        found = budget(people.admin, of)
        valkey.hset(counter(found, of, balance_of(found, of)), mapping={"h": 10 * BILLION})
        assert balance_of(found, of).state == "exhausted"

    def test_an_override_is_the_limit(self, people: People, prod: Environment, valkey: Any) -> None:
        of = subject(prod, people.search)
        found = budget(people.admin, of)
        valkey.hset(counter(found, of, balance_of(found, of)), mapping={"s": 12 * BILLION})
        assert balance_of(found, of).remaining == 0
        override_grant(
            actor=people.admin,
            budget=found,
            limit_usd=Decimal(20),
            expires_at=timezone.now() + timedelta(hours=1),
            reason="launch",
        )
        balance = balance_of(found, of)
        assert (balance.limit, balance.remaining) == (Decimal(20), Decimal(8))

    def test_what_has_rolled_out_does_not_count(
        self, people: People, prod: Environment, valkey: Any
    ) -> None:
        of = subject(prod, people.search)
        found = budget(people.admin, of, period="rolling", rolling_hours=24)
        balance = balance_of(found, of)
        bucket = balance.period.bucket(balance.at)
        assert bucket is not None
        amounts = {"s": 7 * BILLION, f"b{bucket - 61}": 4 * BILLION, f"b{bucket}": 3 * BILLION}
        valkey.hset(counter(found, of, balance), mapping=amounts)
        balance = balance_of(found, of)
        assert (balance.spent, balance.resets_at, balance.forecast) == (Decimal(3), None, None)

    def test_customers_are_found_by_their_digest(
        self, people: People, prod: Environment, valkey: Any
    ) -> None:
        customer = customer_create(actor=people.admin, environment=prod, reference="a:b {c}")
        of = subject(prod, customer)
        found = budget(people.admin, subject(prod, scope="customer"))
        key = counter(found, of, balance_of(found, of))
        assert "a:b" not in key
        valkey.hset(key, mapping={"s": BILLION})
        assert balance_of(found, of).spent == Decimal(1)

    def test_many_take_one_round_trip(
        self, people: People, prod: Environment, valkey: Any, django_assert_num_queries: Any
    ) -> None:
        of = [subject(prod, row) for row in (people.search, people.ads, people.owner)]
        pairs = [(budget(people.admin, one), one) for one in of]
        balances_of(pairs)
        with django_assert_num_queries(2):  # the calendar, overrides
            balances_of(pairs)

        def reads() -> int:
            before = valkey.info("stats")["total_reads_processed"]
            balances_of(pairs)
            return int(valkey.info("stats")["total_reads_processed"] - before)

        # Ours, and this question itself; other tests use the server, too, but not always.
        assert min(reads() for _ in range(20)) <= 3

    def test_the_forecast_is_a_straight_line(
        self, people: People, prod: Environment, valkey: Any
    ) -> None:
        of = subject(prod, people.search)
        found = budget(people.admin, of, period="day")
        at = datetime(2026, 11, 21, 6, tzinfo=UTC)
        name = counters.counter_name(str(found.pk), of.counter_ref, "d2026-11-21")
        valkey.hset(counters.budget_key("prod", name), mapping={"s": 2 * BILLION})
        (balance,) = balances_of([(found, of)], at=at)
        assert balance.forecast == Decimal(8)
        (early,) = balances_of([(found, of)], at=at.replace(hour=0, minute=30))
        assert early.forecast is None


class TestStored:
    def store(self, found: Budget, of: Subject, spent: int) -> datetime:
        at = timezone.now() - timedelta(minutes=3)
        BudgetBalance.objects.create(
            budget=found,
            subject=of.id,
            period_id=balance_of(found, of).period.id,
            spent=spent,
            held=1,
            as_of=at,
        )
        return at

    @pytest.mark.usefixtures("redis_away")
    def test_without_redis_the_last_stored(self, people: People, prod: Environment) -> None:
        of = subject(prod, people.search)
        found = budget(people.admin, of)
        at = self.store(found, of, 4)
        balance = balance_of(found, of)
        assert (balance.spent, balance.held, balance.as_of) == (Decimal(4), Decimal(1), at)

    def test_while_they_are_rebuilt_too(self, people: People, prod: Environment) -> None:
        of = subject(prod, people.search)
        found = budget(people.admin, of)
        self.store(found, of, 4)
        assert balance_of(found, of).spent == Decimal(4)

    @pytest.mark.usefixtures("redis_away")
    def test_neither_is_unknown_and_not_zero(
        self, people: People, prod: Environment, client_of: Any
    ) -> None:
        of = subject(prod, people.search)
        found = budget(people.admin, of)
        balance = balance_of(found, of)
        assert (balance.spent, balance.remaining, balance.state) == (None, None, "unknown")
        page = client_of(people.admin).get(f"/budgets/{found.pk}/").content.decode()
        assert "$0.00" not in page

    @pytest.mark.usefixtures("redis_away")
    def test_pages_say_as_of(self, people: People, prod: Environment, client_of: Any) -> None:
        of = subject(prod, people.search)
        found = budget(people.admin, of)
        self.store(found, of, 4)
        page = client_of(people.admin).get(f"/budgets/{found.pk}/").content.decode()
        assert "Live balances are away" in page
        assert "stored balances" in page


class TestHeadroom:
    def test_use_of_the_last_60_seconds(
        self, people: People, prod: Environment, valkey: Any, built: None
    ) -> None:
        of = subject(prod, people.search)
        found = limit(people.admin, of, rpm=60, tpm=1_000, parallel=4)
        now = time.time()
        second, old = int(now), int(now) - 61
        key = counters.limit_key("prod", "team", str(people.search.pk), None)
        valkey.hset(
            key,
            mapping={
                "r": 12,
                "t": 170,
                "o": old,
                str(second): f"2 70 {int(now * 1000)}",
                str(old): f"10 100 {old * 1000}",
            },
        )
        running = counters.parallel_key("prod", "team", str(people.search.pk), None)
        valkey.zadd(running, {"a": now * 1000 + 30_000, "b": now * 1000 - 1})
        (headroom,) = headroom_of([(found, of)])
        assert [(gauge.kind, gauge.used, gauge.left) for gauge in headroom.gauges] == [
            ("rpm", 2, 58),
            ("tpm", 70, 930),
            ("parallel", 1, 3),
        ]

    def test_unknown_while_the_counters_are_away(self, people: People, prod: Environment) -> None:
        of = subject(prod, people.search)
        (headroom,) = headroom_of([(limit(people.admin, of), of)])
        assert [gauge.used for gauge in headroom.gauges] == [None]
