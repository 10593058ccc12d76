"""A reader of the policy feed skips no change, however late a transaction commits."""

import random
import threading
import time
from uuid import UUID

import pytest
from django.db import connections, transaction

from gateway_admin.catalog.models import Environment
from gateway_admin.keys import policies
from gateway_admin.keys.models import PolicyChange, VirtualKey
from gateway_admin.keys.services import key_block, key_digest
from tests.people import people_create

WRITERS = 6
WRITES_EACH = 12


def _keys(environment: Environment, number: int) -> list[VirtualKey]:
    return VirtualKey.objects.bulk_create(
        VirtualKey(
            environment=environment,
            public_id=f"k{index:04}",
            digest=key_digest(environment=environment, text=f"sk-gw-k{index:04}-x"),
            name=f"key {index}",
        )
        for index in range(number)
    )


@pytest.mark.django_db(transaction=True)
def test_a_poller_sees_every_change_of_writers_that_commit_late() -> None:
    environment = Environment.objects.get(slug="prod")
    keys = _keys(environment, WRITERS * WRITES_EACH)
    finished = threading.Event()
    failures: list[BaseException] = []
    seen: set[UUID] = set()
    versions: list[int] = []

    def write(mine: list[VirtualKey]) -> None:
        try:
            for key in mine:
                with transaction.atomic():
                    policies.policy_changed(keys=[key])
                    time.sleep(random.random() / 100)  # commits long after it took its version
        except BaseException as error:  # noqa: BLE001 (reported by the test's own thread)
            failures.append(error)
        finally:
            connections.close_all()

    def poll() -> None:
        try:
            since = 0
            while True:
                last_round = finished.is_set()
                delta = policies.changed_since(environment=environment, since=since)
                assert delta.keys is not None
                seen.update(delta.keys)
                versions.append(delta.version)
                since = delta.version
                if last_round:
                    return
        except BaseException as error:  # noqa: BLE001 (reported by the test's own thread)
            failures.append(error)
        finally:
            connections.close_all()

    writers = [
        threading.Thread(target=write, args=(keys[start::WRITERS],)) for start in range(WRITERS)
    ]
    poller = threading.Thread(target=poll)
    for thread in [poller, *writers]:
        thread.start()
    for thread in writers:
        thread.join(60)
    finished.set()
    poller.join(60)

    assert failures == []
    assert seen == {key.pk for key in keys}
    assert versions == sorted(versions)
    assert versions[-1] == len(keys)


@pytest.mark.django_db(transaction=True)
def test_a_later_version_is_never_visible_before_an_earlier_one() -> None:
    environment = Environment.objects.get(slug="prod")
    slow, quick = _keys(environment, 2)
    with transaction.atomic():
        policies.policy_changed(keys=[slow])  # the clock exists
    took_version = threading.Event()
    may_commit = threading.Event()
    order: list[str] = []

    def slow_write() -> None:
        with transaction.atomic():
            policies.policy_changed(keys=[slow])
            took_version.set()
            may_commit.wait(20)
            order.append("slow")
        connections.close_all()

    def quick_write() -> None:
        took_version.wait(20)
        with transaction.atomic():
            policies.policy_changed(keys=[quick])
            order.append("quick")
        connections.close_all()

    threads = [threading.Thread(target=slow_write), threading.Thread(target=quick_write)]
    for thread in threads:
        thread.start()
    took_version.wait(20)
    time.sleep(0.2)
    assert policies.current_version(environment) == 1  # neither is visible yet
    may_commit.set()
    for thread in threads:
        thread.join(20)
    assert order == ["slow", "quick"]
    assert policies.changed_since(environment=environment, since=1).keys == {slow.pk, quick.pk}


@pytest.mark.django_db(transaction=True)
def test_a_rolled_back_write_leaves_nothing() -> None:
    environment = Environment.objects.get(slug="prod")
    (key,) = _keys(environment, 1)
    with transaction.atomic():
        policies.policy_changed(keys=[key])
        transaction.set_rollback(True)
    assert policies.current_version(environment) == 0
    assert not PolicyChange.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_the_bell_rings_after_the_commit(valkey) -> None:  # type: ignore[no-untyped-def]
    people = people_create()
    environment = Environment.objects.get(slug="prod")
    (key,) = _keys(environment, 1)
    listener = valkey.pubsub(ignore_subscribe_messages=True)
    listener.subscribe("gateway:bell:prod")
    listener.get_message(timeout=1)
    with transaction.atomic():
        key_block(actor=people.admin, key=key, reason="leaked")
        assert listener.get_message(timeout=0.2) is None
    assert listener.get_message(timeout=2)["data"] == '{"policy": 1}'


@pytest.mark.django_db
class TestFeed:
    @pytest.fixture
    def environment(self) -> Environment:
        return Environment.objects.get(slug="prod")

    def test_nothing_is_newer_than_the_newest(self, environment: Environment) -> None:
        policies.policy_changed(keys=_keys(environment, 3))
        delta = policies.changed_since(environment=environment, since=1)
        assert delta.keys == frozenset()

    def test_keys_of_one_write_share_a_version(self, environment: Environment) -> None:
        policies.policy_changed(keys=_keys(environment, 3))
        assert policies.current_version(environment) == 1
        assert PolicyChange.objects.filter(version=1).count() == 3

    def test_each_environment_has_its_own_clock(self, environment: Environment) -> None:
        policies.policy_changed(keys=_keys(environment, 1))
        assert policies.current_version(Environment.objects.get(slug="dev")) == 0

    def test_a_replica_from_the_future_resyncs(self, environment: Environment) -> None:
        policies.policy_changed(keys=_keys(environment, 1))
        assert policies.changed_since(environment=environment, since=99).full

    def test_deleted_rows_force_a_full_resync(self, environment: Environment) -> None:
        policies.policy_changed(keys=_keys(environment, 1))
        policies.full_resync(environment=environment)
        assert policies.changed_since(environment=environment, since=1).full
        assert not policies.changed_since(environment=environment, since=2).full

    def test_forgotten_deltas_force_a_full_resync(self, environment: Environment) -> None:
        old, new = _keys(environment, 2)
        policies.policy_changed(keys=[old])
        PolicyChange.objects.update(at="2026-01-01T00:00:00Z")
        policies.policy_changed(keys=[new])
        assert policies.forget_old_changes() == 1
        assert policies.changed_since(environment=environment, since=0).full
        assert policies.changed_since(environment=environment, since=1).keys == {new.pk}

    def test_reading_takes_two_queries(self, environment, django_assert_num_queries) -> None:  # type: ignore[no-untyped-def]
        policies.policy_changed(keys=_keys(environment, 50))
        with django_assert_num_queries(2):
            policies.changed_since(environment=environment, since=0)
