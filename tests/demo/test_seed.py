"""The organisation of the demonstration is made by the services that pages use."""

import stat
from pathlib import Path
from typing import Any

import pytest

from gateway_admin.accounts.models import Organisation, User
from gateway_admin.accounts.roles import Role, role_of
from gateway_admin.catalog.models import Deployment, Environment, FallbackChain, Model, Provider
from gateway_admin.demo import state
from gateway_admin.fleet.documents import draft
from gateway_admin.fleet.models import Revision
from gateway_admin.fleet.queries import draft_changes
from gateway_admin.keys.models import (
    Block,
    Budget,
    BudgetOverride,
    RateLimit,
    Team,
    VirtualKey,
)
from gateway_admin.lib.errors import Conflict
from tests import builders
from tests.demo.organisation import seed

pytestmark = pytest.mark.django_db


def test_it_makes_the_whole_organisation(tmp_path: Path) -> None:
    assert seed(tmp_path)
    assert Team.objects.filter(is_demo=True).count() == 5
    assert User.objects.filter(is_demo=True, email__endswith="@demo.example").count() == 20
    assert Provider.objects.filter(is_demo=True).count() == 6
    assert Model.objects.filter(is_demo=True).count() == 10
    assert VirtualKey.objects.count() == 40
    assert set(FallbackChain.objects.values_list("kind", flat=True)) == {
        "general",
        "context_window",
        "content_policy",
    }
    assert Organisation.objects.get().demo_since is not None


def test_every_kind_of_rule_is_there(tmp_path: Path) -> None:
    seed(tmp_path)
    assert {row.scope for row in Budget.objects.all()} >= {"environment", "team", "key", "customer"}
    assert {row.scope for row in RateLimit.objects.all()} >= {"environment", "user", "team"}
    assert BudgetOverride.objects.get().is_in_force()
    assert Block.objects.get().customer is not None


def test_it_publishes_a_history_with_comments(tmp_path: Path) -> None:
    seed(tmp_path)
    prod = builders.environment()
    revisions = list(Revision.objects.filter(environment=prod).order_by("number"))
    assert len(revisions) == 7
    assert all(revision.comment and revision.published_by for revision in revisions)
    days = [revision.published_at for revision in revisions]
    assert days == sorted(days)
    assert (days[-1] - days[0]).days > 50
    for environment in Environment.objects.all():
        assert draft_changes(environment) == []


def test_it_shows_every_sort_of_price(tmp_path: Path) -> None:
    seed(tmp_path)
    document = draft(builders.environment()).document
    sources = {row["price"]["source"] if row["price"] else None for row in document["deployments"]}
    assert sources == {"book", "own", None}
    assert (
        draft(builders.environment())
        .warnings[0]
        .text.startswith("Deployment azure-mini-pilot is unpriced")
    )


def test_its_people_can_sign_in_with_the_stored_passwords(tmp_path: Path, client: Any) -> None:
    seed(tmp_path)
    stored = state.stored_read(tmp_path)
    assert stored is not None
    assert {login["role"] for login in stored["logins"]} == {"admin", "finance", "developer"}
    for login in stored["logins"]:
        user = User.objects.get(email=login["email"])
        assert user.check_password(login["password"])
        assert role_of(user) == Role(login["role"])


def test_its_secrets_are_readable_by_the_owner_alone(tmp_path: Path) -> None:
    seed(tmp_path)
    assert stat.S_IMODE(state.keys_file(tmp_path).stat().st_mode) == 0o600


def test_a_second_seeding_changes_nothing(tmp_path: Path) -> None:
    seed(tmp_path)
    before = (VirtualKey.objects.count(), Revision.objects.count(), User.objects.count())
    stored = state.stored_read(tmp_path)
    assert not seed(tmp_path)
    assert before == (VirtualKey.objects.count(), Revision.objects.count(), User.objects.count())
    assert state.stored_read(tmp_path) == stored


def test_it_follows_the_simulator_to_another_port(tmp_path: Path) -> None:
    seed(tmp_path)
    assert not seed(tmp_path, "http://127.0.0.1:5001")
    credential = Deployment.objects.get(name="openai-gpt-4.1").credential
    assert credential.params["api_base"] == "http://127.0.0.1:5001/openai/v1"
    assert draft_changes(builders.environment()) == []


def test_it_refuses_an_installation_with_data_of_its_own(tmp_path: Path) -> None:
    builders.deployment()
    with pytest.raises(Conflict, match="1 provider, 1 model"):
        seed(tmp_path)
    assert not User.objects.filter(is_demo=True).exists()
    assert not state.keys_file(tmp_path).exists()


def test_it_refuses_production(tmp_path: Path, settings: Any) -> None:
    settings.PRODUCTION = True
    with pytest.raises(Conflict, match="production"):
        seed(tmp_path)
