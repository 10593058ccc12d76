"""The removal takes all of the demonstration and nothing else."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import DatabaseError, transaction

from gateway_admin.accounts.models import AuditEvent, Organisation, User
from gateway_admin.accounts.roles import Role
from gateway_admin.accounts.services import user_create
from gateway_admin.catalog.models import (
    Credential,
    Deployment,
    Environment,
    FallbackChain,
    Model,
    ModelAlias,
    Provider,
)
from gateway_admin.demo import state
from gateway_admin.demo.removal import Removed, demo_remove
from gateway_admin.fleet.models import Revision
from gateway_admin.fleet.queries import active_revision
from gateway_admin.keys.models import (
    Block,
    Budget,
    BudgetBalance,
    Customer,
    RateLimit,
    Team,
    VirtualKey,
)
from gateway_admin.keys.policies import changed_since
from gateway_admin.lib.errors import Conflict
from gateway_admin.usage.checks import differences
from gateway_admin.usage.models import CostHour, CustomerDay, LatencyHour, Series, UsageEvent
from tests import builders
from tests.demo.organisation import fill, seed
from tests.usage.ledger import take_in, usage_event

pytestmark = pytest.mark.django_db


def remove(data_dir: Path, actor: User | None = None) -> Removed:
    return demo_remove(data_dir=data_dir, actor=actor, settle_s=0)


def test_nothing_of_it_remains(tmp_path: Path) -> None:
    seed(tmp_path)
    fill(events=600, days=6)
    counted = UsageEvent.objects.count()
    removed = remove(tmp_path)
    assert (removed.events, removed.keys, removed.people) == (counted, 40, 20)
    left: list[Any] = [User, Team, VirtualKey, Provider, Model, Credential, Deployment]
    left += [ModelAlias, FallbackChain, UsageEvent, Series, CostHour, LatencyHour]
    left += [CustomerDay, Budget, BudgetBalance, RateLimit, Customer, Block]
    assert {model.__name__: model.objects.count() for model in left} == dict.fromkeys(
        (model.__name__ for model in left), 0
    )
    organisation = Organisation.objects.get()
    assert (organisation.name, organisation.time_zone) == ("My organisation", "UTC")
    assert organisation.demo_since is None
    assert state.stored_read(tmp_path) is None


def test_proxies_are_told_to_forget_models_and_keys(tmp_path: Path) -> None:
    seed(tmp_path)
    prod = builders.environment()
    before = changed_since(environment=prod, since=0).version
    removed = remove(tmp_path)
    active = active_revision(prod)
    assert active is not None
    assert active.comment == "The demonstration was removed"
    assert (active.document["deployments"], active.document["credentials"]) == ([], [])
    assert removed.unpublished == []
    assert changed_since(environment=prod, since=before).full


def test_history_and_audit_stay(tmp_path: Path) -> None:
    seed(tmp_path)
    remove(tmp_path)
    assert Revision.objects.filter(environment__slug="prod").count() == 8
    assert not Revision.objects.exclude(published_by=None).exists()
    assert AuditEvent.objects.filter(action="key.create").count() == 40
    assert AuditEvent.objects.filter(action="demo.remove").exists()


def test_real_data_stays(tmp_path: Path) -> None:
    seed(tmp_path)
    fill(events=400, days=4)
    person = user_create(actor=None, email="real@example.com", role=Role.DEVELOPER)
    own = builders.deployment(model=builders.model("own-model"), prices={"input_token": "0.1"})
    key, _ = builders.key(person, allowed_models=["own-model"])
    event = usage_event(key_id=str(key.pk), deployment=str(own.pk), model="own-model")
    take_in([event])
    remove(tmp_path)
    assert [str(row.event_id) for row in UsageEvent.objects.all()] == [event["event_id"]]
    assert VirtualKey.objects.get().state == "active"
    assert Deployment.objects.get() == own
    assert User.objects.get() == person
    assert differences() == []


def test_rollups_shared_with_real_traffic_are_computed_anew(tmp_path: Path) -> None:
    seed(tmp_path)
    own = builders.deployment(model=builders.model("own-model"), prices={"input_token": "0.1"})
    invented = VirtualKey.objects.filter(name="support-bot").get()
    common = {"deployment": str(own.pk), "model": "own-model"}
    real = usage_event(key_id=str(uuid4()), **common)
    take_in([real, usage_event(key_id=str(invented.pk), **common)])
    remove(tmp_path)
    assert [str(row.event_id) for row in UsageEvent.objects.all()] == [real["event_id"]]
    assert differences() == []
    assert set(CostHour.objects.values_list("requests", flat=True)) == {1}


def test_what_a_simulated_provider_answered_goes_whoever_asked(tmp_path: Path) -> None:
    seed(tmp_path)
    simulated = Deployment.objects.get(environment__slug="prod", name="openai-gpt-4.1")
    take_in([usage_event(key_id=str(uuid4()), deployment=str(simulated.pk))])
    assert remove(tmp_path).events == 1
    assert not UsageEvent.objects.exists()


def test_a_real_persons_key_in_an_invented_team_lives_on(tmp_path: Path) -> None:
    seed(tmp_path)
    person = user_create(actor=None, email="real@example.com", role=Role.ADMIN)
    team = Team.objects.get(slug="search")
    team.memberships.create(user=person)
    key, _ = builders.key(person, team=team)
    remove(tmp_path)
    kept = VirtualKey.objects.get()
    assert (kept.pk, kept.team, kept.owner, kept.state) == (key.pk, None, person, "active")


def test_a_model_that_a_real_provider_serves_too_is_kept(tmp_path: Path) -> None:
    seed(tmp_path)
    model = Model.objects.get(name="gpt-4.1")
    own = builders.deployment(model=model)
    removed = remove(tmp_path)
    model.refresh_from_db()
    assert not model.is_demo
    assert not Model.objects.filter(is_demo=True).exists()
    assert list(Deployment.objects.all()) == [own]
    # Somebody's edit waits: it is not published behind their back.
    assert removed.unpublished == ["Production"]


def test_the_ledger_is_append_only_again_afterwards(tmp_path: Path) -> None:
    seed(tmp_path)
    take_in([usage_event(key_id=str(uuid4()))])
    remove(tmp_path)
    with pytest.raises(DatabaseError, match="appended"), transaction.atomic():
        UsageEvent.objects.all().delete()


def test_it_can_be_seeded_again(tmp_path: Path) -> None:
    seed(tmp_path)
    remove(tmp_path)
    assert seed(tmp_path)
    assert VirtualKey.objects.count() == 40
    revisions = Revision.objects.filter(environment__slug="prod").order_by("number")
    assert [revision.number for revision in revisions] == list(range(1, 16))
    published = [revision.published_at for revision in revisions]
    assert published == sorted(published)
    fill(events=300, days=3)
    assert UsageEvent.objects.filter(revision=14).exists()
    assert (
        not UsageEvent.objects.filter(revision__lt=8)
        .exclude(environment_id__in=Environment.objects.exclude(slug="prod").values("pk"))
        .exists()
    )


def test_without_a_demonstration_there_is_nothing_to_remove(tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="no demonstration"):
        remove(tmp_path)


class TestPage:
    URL = "/settings/demonstration/remove/"

    @pytest.fixture(autouse=True)
    def seeded(self, tmp_path: Path, settings: Any) -> None:
        settings.DATA_DIR = tmp_path
        seed(tmp_path)

    def person(self, alias: str) -> User:
        return User.objects.get(email=f"{alias}@demo.example")

    def test_it_tells_what_goes(self, client_of: Any) -> None:
        answer = client_of(self.person("admin")).get(self.URL)
        assert answer.status_code == 200
        assert "Virtual keys" in answer.content.decode()
        assert "you will be signed out" in answer.content.decode()

    @pytest.mark.parametrize("alias", ["finance", "developer"])
    def test_it_is_for_administrators(self, client_of: Any, alias: str) -> None:
        client = client_of(self.person(alias))
        assert client.get(self.URL).status_code == 403
        assert client.post(self.URL, {"confirm": "demonstration"}).status_code == 403
        assert VirtualKey.objects.exists()

    def test_without_the_typed_word_nothing_happens(self, client_of: Any) -> None:
        answer = client_of(self.person("admin")).post(self.URL, {"confirm": "demo"})
        assert "Nothing was removed" in answer.content.decode()
        assert VirtualKey.objects.count() == 40

    def test_its_own_administrator_gets_a_link_for_a_real_one(self, client_of: Any) -> None:
        client = client_of(self.person("admin"))
        answer = client.post(self.URL, {"confirm": "demonstration"})
        assert answer.status_code == 200
        assert "/setup/" in answer.content.decode()
        assert not VirtualKey.objects.exists()
        assert client.get(self.URL).status_code == 302  # to the sign-in

    def test_a_real_administrator_stays_signed_in(self, client_of: Any) -> None:
        admin = user_create(actor=None, email="real@example.com", role=Role.ADMIN)
        client = client_of(admin)
        assert client.post(self.URL, {"confirm": "demonstration"}).status_code == 302
        assert client.get(self.URL).status_code == 404
