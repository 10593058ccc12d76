"""revision_publish: the draft becomes the newest revision."""

import json
import threading
from typing import Any

import pytest
from django.db import connection, transaction

from gateway_admin.accounts.models import AuditEvent
from gateway_admin.catalog.models import Deployment, Environment, Price
from gateway_admin.fleet.models import Revision
from gateway_admin.fleet.queries import draft_changes, pending_count
from gateway_admin.fleet.services import revision_publish
from gateway_admin.lib.errors import Conflict, InvalidInput
from proxy.contract import bell_channel, check_document, document_digest
from tests import builders

pytestmark = pytest.mark.django_db


def test_it_publishes_the_draft(prod: Any, gpt: Any, people: Any) -> None:
    revision = revision_publish(environment=prod, actor=people.admin, comment="  First\none ")
    assert (revision.number, revision.comment) == (1, "First one")
    assert revision.published_by == people.admin
    revision.refresh_from_db()
    assert document_digest(revision.document) == revision.digest
    check_document(revision.document)


def test_the_same_digest_is_no_new_revision(prod: Any, gpt: Any, people: Any) -> None:
    first = revision_publish(environment=prod, actor=people.admin)
    again = revision_publish(environment=prod, actor=people.admin, comment="again")
    assert again.pk == first.pk
    assert AuditEvent.objects.filter(action="revision.publish").count() == 1


def test_an_empty_environment_can_be_published(prod: Any, people: Any) -> None:
    revision = revision_publish(environment=prod, actor=people.admin)
    assert revision.document["deployments"] == []


def test_environments_have_numbers_of_their_own(prod: Any, gpt: Any, people: Any) -> None:
    staging = builders.environment("staging")
    assert revision_publish(environment=prod, actor=people.admin).number == 1
    assert revision_publish(environment=staging, actor=people.admin).number == 1


def test_it_is_audited_with_the_comment(prod: Any, gpt: Any, people: Any) -> None:
    revision_publish(environment=prod, actor=people.admin, comment="Launch")
    event = AuditEvent.objects.get(action="revision.publish")
    assert (event.actor, event.environment) == (people.admin, "prod")
    assert event.changes["comment"] == [None, "Launch"]


def test_it_rings_the_bell_after_the_commit(
    prod: Any, gpt: Any, people: Any, valkey: Any, django_capture_on_commit_callbacks: Any
) -> None:
    ears = valkey.pubsub(ignore_subscribe_messages=True)
    ears.subscribe(bell_channel("prod"))
    ears.get_message(timeout=1)
    with django_capture_on_commit_callbacks(execute=True):
        revision_publish(environment=prod, actor=people.admin)
    message = ears.get_message(timeout=2)
    assert json.loads(message["data"]) == {"revision": 1}


def test_a_revision_cannot_be_changed_or_deleted(prod: Any, gpt: Any, people: Any) -> None:
    revision = revision_publish(environment=prod, actor=people.admin)
    for write in (lambda: Revision.objects.update(comment="x"), revision.delete):
        with pytest.raises(Exception, match="Cannot update or delete"), transaction.atomic():
            write()


def test_a_secret_is_in_no_row(prod: Any, gpt: Any, people: Any) -> None:
    revision_publish(environment=prod, actor=people.admin)
    with connection.cursor() as cursor:
        cursor.execute("SELECT document::text FROM fleet_revision")
        (text,) = cursor.fetchone()
        cursor.execute("SELECT string_agg(changes::text, '') FROM accounts_auditevent")
        (audited,) = cursor.fetchone()
    assert builders.CANARY_SECRET not in text + audited


def test_a_draft_that_cannot_work_is_refused(prod: Any, gpt: Any, people: Any) -> None:
    Price.objects.create(deployment=gpt, source="own", units={"fortnight": "1"})
    with pytest.raises(Conflict, match=r"openai-gpt-4o.*fortnight"):
        revision_publish(environment=prod, actor=people.admin)
    assert not Revision.objects.exists()


def test_a_comment_has_a_limit(prod: Any, gpt: Any, people: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        revision_publish(environment=prod, actor=people.admin, comment="x" * 301)
    assert refused.value.field == "comment"


def test_pending_changes_are_counted_until_published(prod: Any, gpt: Any, people: Any) -> None:
    assert pending_count(prod) == 3  # a model, its deployment, its credential
    revision_publish(environment=prod, actor=people.admin)
    assert pending_count(prod) == 0
    Deployment.objects.filter(pk=gpt.pk).update(weight=5)
    assert pending_count(prod) == 1
    assert [change.text for change in draft_changes(prod)] == ["openai-gpt-4o: weight 1 → 5"]


def test_the_change_count_of_a_revision_is_kept(prod: Any, gpt: Any, people: Any) -> None:
    assert revision_publish(environment=prod, actor=people.admin).change_count == 3
    Deployment.objects.filter(pk=gpt.pk).update(weight=5, rpm=100)
    assert revision_publish(environment=prod, actor=people.admin).change_count == 2


@pytest.mark.django_db(transaction=True)
def test_publishes_at_once_leave_no_gap(people: Any) -> None:
    """Eight threads edit and publish: numbers 1…n, each once, the last has the last edit."""
    prod = builders.environment("prod")
    gpt = builders.deployment(environment=prod, name="d")
    barrier, failures = threading.Barrier(8), []

    def edit_and_publish(weight: int) -> None:
        try:
            barrier.wait(10)
            Deployment.objects.filter(pk=gpt.pk).update(weight=weight)
            revision_publish(environment=prod, actor=people.admin)
        except Exception as error:  # noqa: BLE001 (told by the assertion below)
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=edit_and_publish, args=(n,)) for n in range(2, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    numbers = list(Revision.objects.order_by("number").values_list("number", flat=True))
    assert numbers == list(range(1, len(numbers) + 1))
    newest = Revision.objects.order_by("-number")[0]
    gpt.refresh_from_db()
    assert newest.document["deployments"][0]["weight"] == gpt.weight


def test_an_environment_publishes_by_itself(
    people: Any, django_capture_on_commit_callbacks: Any
) -> None:
    from gateway_admin.catalog.services import draft_changed

    dev: Environment = builders.environment("dev")
    builders.deployment(environment=dev)
    with django_capture_on_commit_callbacks(execute=True):
        draft_changed(environment=dev, actor=people.admin)
    assert Revision.objects.filter(environment=dev).count() == 1


def test_a_draft_that_nobody_has_read_is_not_published(prod: Any, gpt: Any, people: Any) -> None:
    with pytest.raises(Conflict, match="changed meanwhile"):
        revision_publish(environment=prod, actor=people.admin, expected_digest="0" * 64)
    assert not Revision.objects.exists()


def test_a_known_count_of_pending_changes_costs_one_query(
    prod: Any, gpt: Any, people: Any, django_assert_num_queries: Any
) -> None:
    assert pending_count(prod) == 3
    with django_assert_num_queries(1):
        assert pending_count(prod) == 3


def test_every_edit_is_counted_at_once(prod: Any, gpt: Any, people: Any) -> None:
    revision_publish(environment=prod, actor=people.admin)
    assert pending_count(prod) == 0
    other = builders.deployment(environment=prod, credential=gpt.credential)
    assert pending_count(prod) == 2
    builders.alias("default", gpt.model, environment=prod)
    assert pending_count(prod) == 3
    chain = builders.chain(gpt.model, [other.model], environment=prod)
    assert pending_count(prod) == 4
    chain.delete()
    Price.objects.create(deployment=gpt, source="own", units={"input_token": "1"})
    assert pending_count(prod) == 5  # another amount, and none per output token
    Environment.objects.filter(pk=prod.pk).update(num_retries=7)
    prod.refresh_from_db()
    assert pending_count(prod) == 6


def test_pending_changes_are_counted_without_redis(prod: Any, gpt: Any, settings: Any) -> None:
    away = {**settings.CACHES["default"], "LOCATION": "redis://127.0.0.1:1"}
    settings.CACHES = {"default": away}
    assert pending_count(prod) == 3
