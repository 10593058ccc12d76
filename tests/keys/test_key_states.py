"""Blocking, unblocking, revoking, editing: one key and many."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from gateway_admin.accounts.models import AuditEvent
from gateway_admin.catalog.models import Deployment, Environment
from gateway_admin.keys import services
from gateway_admin.keys.models import VirtualKey
from gateway_admin.keys.policies import changed_since, current_version
from gateway_admin.lib.errors import Conflict, InvalidInput
from tests.keys.conftest import IssueKey
from tests.people import People

pytestmark = pytest.mark.django_db


def _fields(key: VirtualKey, **changes: Any) -> dict[str, Any]:
    return {
        "name": key.name,
        "owner": key.owner,
        "team": key.team,
        "allowed_models": key.allowed_models,
        "expires_at": key.expires_at,
        "tags": key.tags,
        **changes,
    }


def test_block_keeps_the_reason_and_is_announced(
    people: People, issue: IssueKey, prod: Environment
) -> None:
    key, _ = issue()
    since = current_version(prod)
    services.key_block(actor=people.owner, key=key, reason=" leaked in a log ")
    key.refresh_from_db()
    assert (key.state, key.reason) == ("blocked", "leaked in a log")
    assert changed_since(environment=prod, since=since).keys == {key.pk}
    event = AuditEvent.objects.get(action="key.block")
    assert event.changes == {"state": ["Active", "Blocked"], "reason": ["", "leaked in a log"]}


def test_block_wants_a_reason(people: People, issue: IssueKey, client_of: Any) -> None:
    key, _ = issue()
    with pytest.raises(InvalidInput):
        services.key_block(actor=people.owner, key=key, reason=" ")
    answer = client_of(people.owner).post(f"/keys/{key.pk}/block/", {"reason": ""})
    assert answer.status_code == 422
    assert VirtualKey.objects.get().state == "active"


def test_unblock(people: People, issue: IssueKey) -> None:
    key, _ = issue()
    services.key_block(actor=people.owner, key=key, reason="x")
    key = services.key_unblock(actor=people.owner, key=key)
    assert (key.state, key.reason) == ("active", "")
    with pytest.raises(Conflict):
        services.key_unblock(actor=people.owner, key=key)


def test_revoked_is_for_good(people: People, issue: IssueKey) -> None:
    key, _ = issue()
    key = services.key_revoke(actor=people.owner, key=key)
    assert key.state == "revoked"
    assert key.revoked_at is not None
    with pytest.raises(Conflict):
        services.key_block(actor=people.owner, key=key, reason="x")
    with pytest.raises(Conflict):
        services.key_unblock(actor=people.owner, key=key)
    with pytest.raises(Conflict):
        services.key_update(actor=people.owner, key=key, **_fields(key, name="n"))
    services.key_revoke(actor=people.owner, key=key)
    assert AuditEvent.objects.filter(action="key.revoke").count() == 1


def test_revoking_wants_the_name(people: People, issue: IssueKey, client_of: Any) -> None:
    key, _ = issue("indexer")
    client = client_of(people.owner)
    client.post(f"/keys/{key.pk}/revoke/", {"confirm": "index"})
    assert VirtualKey.objects.get().state == "active"
    client.post(f"/keys/{key.pk}/revoke/", {"confirm": "indexer"})
    assert VirtualKey.objects.get().state == "revoked"


def test_many_keys_share_one_version(people: People, issue: IssueKey, prod: Environment) -> None:
    keys = [issue(f"key {number}")[0] for number in range(5)]
    since = current_version(prod)
    services.keys_revoke(actor=people.admin, keys=keys)
    delta = changed_since(environment=prod, since=since)
    assert delta.version == since + 1
    assert delta.keys == {key.pk for key in keys}
    assert AuditEvent.objects.filter(action="key.revoke").count() == 5


def test_many_keys_are_asked_for_first(people: People, issue: IssueKey, client_of: Any) -> None:
    keys = [issue(f"key {number}")[0] for number in range(3)]
    client = client_of(people.owner)
    data = {"action": "block", "key": [key.pk for key in keys]}
    page = client.post("/keys/bulk/", data)
    assert "block 3 keys" in page.content.decode()
    assert not VirtualKey.objects.exclude(state="active").exists()
    wrong = client.post("/keys/bulk/", {**data, "confirmed": "1", "confirm": "block 2 keys"})
    assert wrong.status_code == 422
    client.post(
        "/keys/bulk/", {**data, "confirmed": "1", "confirm": "block 3 keys", "reason": "leak"}
    )
    assert VirtualKey.objects.filter(state="blocked", reason="leak").count() == 3


def test_edit_changes_and_tells_before_and_after(people: People, issue: IssueKey) -> None:
    key, _ = issue(tags={"a": "1"})
    digest = key.digest
    services.key_update(
        actor=people.owner,
        key=key,
        **_fields(key, name="renamed", owner=people.teammate, allowed_models=["default"]),
    )
    key.refresh_from_db()
    assert key.digest == digest
    assert AuditEvent.objects.get(action="key.update").changes == {
        "name": ["indexer", "renamed"],
        "owner": ["owner@example.com", "teammate@example.com"],
        "models": ["all", ["default"]],
    }


def test_an_edit_that_changes_nothing_announces_nothing(
    people: People, issue: IssueKey, prod: Environment
) -> None:
    key, _ = issue()
    since = current_version(prod)
    services.key_update(actor=people.owner, key=key, **_fields(key))
    assert current_version(prod) == since
    assert not AuditEvent.objects.filter(action="key.update").exists()


def test_a_model_that_is_gone_may_stay_allowed(people: People, issue: IssueKey) -> None:
    key, _ = issue(allowed_models=["claude-haiku"])
    Deployment.objects.filter(name="claude-haiku").delete()
    fields = _fields(key, allowed_models=["claude-haiku", "gpt-4o"])
    key = services.key_update(actor=people.owner, key=key, **fields)
    assert key.allowed_models == ["claude-haiku", "gpt-4o"]


def test_an_expired_key_can_be_given_more_time(
    people: People, issue: IssueKey, client_of: Any
) -> None:
    key, _ = issue()
    VirtualKey.objects.update(expires_at=timezone.now() - timedelta(days=1))
    key.refresh_from_db()
    assert key.shown_state == "expired"
    form = {
        "name": key.name,
        "team": "search",
        "owner": "owner@example.com",
        "models_mode": "all",
        "expires": "30",
        "tags": "",
    }
    client_of(people.owner).post(f"/keys/{key.pk}/edit/", form)
    key.refresh_from_db()
    assert key.shown_state == "active"


class TestLastUsed:
    def test_it_moves_forward_only(self, issue: IssueKey) -> None:
        key, _ = issue()
        now = timezone.now()
        services.keys_used([(key.pk, now)])
        services.keys_used([(key.pk, now - timedelta(hours=1))])
        key.refresh_from_db()
        assert key.last_used_at == now
        services.keys_used([(key.pk, now + timedelta(hours=2)), (key.pk, now)])
        key.refresh_from_db()
        assert key.last_used_at == now + timedelta(hours=2)

    def test_within_a_minute_the_row_is_left_alone(
        self, issue: IssueKey, django_assert_num_queries: Any
    ) -> None:
        key, _ = issue()
        now = timezone.now()
        services.keys_used([(key.pk, now)])
        services.keys_used([(key.pk, now + timedelta(seconds=30))])
        key.refresh_from_db()
        assert key.last_used_at == now

    def test_many_keys_take_one_query(
        self, issue: IssueKey, django_assert_num_queries: Any
    ) -> None:
        keys = [issue(f"k{number}")[0] for number in range(4)]
        with django_assert_num_queries(1):
            services.keys_used([(key.pk, timezone.now()) for key in keys])
        assert not VirtualKey.objects.filter(last_used_at=None).exists()
        services.keys_used([])
