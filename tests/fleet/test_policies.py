"""GET /fleet/v1/policies: which keys replicas let in."""

import base64
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from gateway_admin.fleet.services import fleet_identity, open_key
from gateway_admin.keys.models import VirtualKey
from gateway_admin.keys.policies import full_resync
from gateway_admin.keys.services import key_block, key_revoke, key_unblock
from gateway_admin.lib import crypto
from proxy.contract import KeyPolicy, secret_context
from tests import builders

pytestmark = pytest.mark.django_db


@pytest.fixture
def feed(prod: Any, replica_of: Any) -> Any:
    replica = replica_of(prod)
    return lambda since=0: replica.get(f"policies?since={since}").json()


def test_a_fresh_replica_gets_every_key(prod: Any, feed: Any, people: Any) -> None:
    key, _ = builders.key(people.owner, environment=prod, team=people.search, tags={"a": 'b"c'})
    answer = feed()
    assert (answer["version"], answer["full"], answer["removed"]) == (1, True, [])
    (policy,) = answer["keys"]
    assert policy == {
        "public_id": key.public_id,
        "digest": key.digest,
        "name": key.name,
        "state": "active",
        "reason": "",
        "expires_at": None,
        "key_id": str(key.pk),
        "team_id": str(people.search.pk),
        "team": "search",
        "user_id": str(people.owner.pk),
        "user": "owner@example.com",
        "models": None,
        "tags": {"a": 'b"c'},
        "cache": "off",
        "cache_ttl_s": None,
        "cache_version": 1,
        "max_output_tokens": None,
    }
    assert policy.keys() == KeyPolicy.__annotations__.keys()


def test_the_key_itself_is_not_in_the_feed(prod: Any, replica_of: Any, people: Any) -> None:
    _, text = builders.key(people.owner, environment=prod)
    secret = text.rsplit("-", 1)[1]
    assert secret not in replica_of(prod).get("policies?since=0").content.decode()


def test_the_pepper_travels_sealed_and_matches_the_digest(
    prod: Any, feed: Any, people: Any
) -> None:
    key, text = builders.key(people.owner, environment=prod)
    sealed = base64.b64decode(feed()["pepper"])
    fleet_key = open_key(fleet_identity(prod))
    pepper = crypto.unseal(fleet_key, sealed, secret_context("prod", "pepper"))
    assert crypto.keyed_digest(pepper, text) == key.digest


def test_a_block_is_a_delta(prod: Any, feed: Any, people: Any) -> None:
    key, _ = builders.key(people.owner, environment=prod)
    builders.key(people.owner, environment=prod)
    seen = feed()["version"]
    key_block(actor=people.admin, key=key, reason="leaked")
    answer = feed(seen)
    assert (answer["version"], answer["full"]) == (seen + 1, False)
    states = [(p["public_id"], p["state"], p["reason"]) for p in answer["keys"]]
    assert states == [(key.public_id, "blocked", "leaked")]
    key_unblock(actor=people.admin, key=key)
    assert feed(seen + 1)["keys"][0]["state"] == "active"


def test_a_revoked_key_is_removed(prod: Any, feed: Any, people: Any) -> None:
    key, _ = builders.key(people.owner, environment=prod)
    seen = feed()["version"]
    key_revoke(actor=people.admin, key=key)
    answer = feed(seen)
    assert (answer["keys"], answer["removed"]) == ([], [key.public_id])
    assert feed()["keys"] == []


def test_nothing_new_is_an_empty_delta(prod: Any, feed: Any, people: Any) -> None:
    builders.key(people.owner, environment=prod)
    answer = feed(1)
    assert (answer["full"], answer["keys"], answer["removed"]) == (False, [], [])


def test_expired_keys_are_included(prod: Any, feed: Any, people: Any) -> None:
    """Their callers are told that they expired, and not that they do not exist."""
    key, _ = builders.key(people.owner, environment=prod)
    past = timezone.now() - timedelta(minutes=1)
    VirtualKey.objects.filter(pk=key.pk).update(expires_at=past)
    assert feed()["keys"][0]["expires_at"] == past.isoformat(timespec="microseconds")


def test_who_is_ahead_or_too_old_gets_everything(prod: Any, feed: Any, people: Any) -> None:
    builders.key(people.owner, environment=prod)
    assert feed(99)["full"]
    builders.key(people.owner, environment=prod)
    full_resync(environment=prod)
    assert feed(1)["full"]
    assert len(feed(1)["keys"]) == 2


def test_another_environments_keys_are_not_seen(prod: Any, people: Any, replica_of: Any) -> None:
    builders.key(people.owner, environment=prod)
    answer = replica_of(builders.environment("dev")).get("policies?since=0").json()
    assert (answer["version"], answer["keys"]) == (0, [])


@pytest.mark.parametrize("since", ["-1", "x", "1.5", "9" * 30, "\u0661"])
def test_a_since_that_is_no_version_is_refused(prod: Any, replica_of: Any, since: Any) -> None:
    assert replica_of(prod).get(f"policies?since={since}").status_code == 400


def test_the_number_of_queries_is_fixed(
    prod: Any, replica_of: Any, people: Any, django_assert_num_queries: Any
) -> None:
    for _ in range(3):
        key, _ = builders.key(people.owner, environment=prod)
    replica = replica_of(prod)
    with django_assert_num_queries(6):  # token, clock, orders, keys, rules, calendar
        replica.get("policies?since=0")
    key_revoke(actor=people.admin, key=key)
    with django_assert_num_queries(6):  # token, clock, what changed, orders, keys, calendar
        replica.get("policies?since=3")


def test_a_hundred_thousand_keys_are_one_answer(prod: Any, replica_of: Any, people: Any) -> None:
    key, _ = builders.key(people.owner, environment=prod, team=people.search)
    builders.copies_of(key, 99_999)
    answer = replica_of(prod).get("policies?since=0").json()
    assert answer["full"]
    assert len({policy["public_id"] for policy in answer["keys"]}) == 100_000
