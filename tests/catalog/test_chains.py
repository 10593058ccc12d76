"""Fallback chains: what is refused, and why it says."""

from typing import Any

import pytest
from django.utils import timezone

from gateway_admin.catalog import services
from gateway_admin.catalog.credentials import credentials_seen
from gateway_admin.catalog.models import Deployment, FallbackChain
from gateway_admin.lib.errors import Conflict, InvalidInput
from tests.catalog import build

pytestmark = pytest.mark.django_db


def chain(first: str, *targets: str, **fields: Any) -> FallbackChain:
    return services.chain_create(
        actor=None,
        environment=build.prod(),
        model=build.model(first),
        targets=[build.model(name) for name in targets],
        **fields,
    )


@pytest.fixture
def served() -> dict[str, Deployment]:
    """a, b and c, each behind a credential of its own."""
    return {
        name: build.deployment(model_name=name, behind=build.credential(f"cred-{name}"))
        for name in ("a", "b", "c")
    }


@pytest.mark.usefixtures("served")
def test_it_keeps_the_order() -> None:
    created = chain("a", "c", "b")
    assert [step.model.name for step in created.steps.all()] == ["c", "b"]
    changed = services.chain_update(
        actor=None, chain=created, targets=[build.model("b"), build.model("c")]
    )
    assert [step.model.name for step in changed.steps.all()] == ["b", "c"]


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize(
    ("targets", "words"),
    [
        ((), "at least one step"),
        (("a",), "fall back to itself"),
        (("b", "b"), "twice"),
        (("unserved",), "“unserved” has no deployment in this environment"),
    ],
)
def test_it_is_refused_with_the_reason(targets: tuple[str, ...], words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        chain("a", *targets)
    assert caught.value.field == "targets"
    assert not FallbackChain.objects.exists()


@pytest.mark.usefixtures("served")
def test_a_circle_is_drawn_in_the_message() -> None:
    chain("b", "c")
    chain("c", "a")
    with pytest.raises(InvalidInput, match="a → b → c → a"):
        chain("a", "b")


@pytest.mark.usefixtures("served")
def test_kinds_do_not_form_circles_with_each_other() -> None:
    chain("a", "b")
    chain("b", "a", kind="context_window")


@pytest.mark.usefixtures("served")
def test_a_model_has_one_chain_of_a_kind() -> None:
    chain("a", "b")
    with pytest.raises(InvalidInput, match="already has a general chain"):
        chain("a", "c")


def test_another_mode_cannot_answer(served: dict[str, Deployment]) -> None:
    build.deployment(model_name=build.model("e", mode="embedding").name)
    with pytest.raises(InvalidInput, match="“e” answers embedding requests"):
        chain("a", "e")


def test_a_target_without_working_credential_is_refused(served: dict[str, Deployment]) -> None:
    services.credential_update(actor=None, credential=served["b"].credential, enabled=False)
    with pytest.raises(InvalidInput, match="credential “cred-b” is disabled"):
        chain("a", "b")


def test_a_target_whose_credential_was_refused_is_refused(served: dict[str, Deployment]) -> None:
    credential = served["b"].credential
    credentials_seen(failed=[(credential.pk, timezone.now(), "authentication", "no")])
    with pytest.raises(InvalidInput, match="refused credential “cred-b” at the last contact"):
        chain("a", "b")
    credentials_seen(succeeded={credential.pk: timezone.now()})
    chain("a", "b")


def test_a_disabled_deployment_does_not_count(served: dict[str, Deployment]) -> None:
    services.deployment_update(actor=None, deployment=served["b"], enabled=False)
    with pytest.raises(InvalidInput, match="is disabled"):
        chain("a", "b")


def test_what_a_chain_needs_is_not_taken_away(served: dict[str, Deployment]) -> None:
    chain("a", "b")
    b = served["b"]
    for take in (
        lambda: services.deployment_update(actor=None, deployment=b, enabled=False),
        lambda: services.deployment_delete(actor=None, deployment=b),
        lambda: services.deployment_update(actor=None, deployment=b, model=build.model("c")),
        lambda: services.credential_update(actor=None, credential=b.credential, enabled=False),
    ):
        with pytest.raises(Conflict, match="would break the general fallback chain of “a”"):
            take()
    b.refresh_from_db()
    assert b.enabled
    assert b.credential.enabled


def test_a_second_deployment_makes_the_first_dispensable(served: dict[str, Deployment]) -> None:
    chain("a", "b")
    build.deployment("spare", model_name="b", behind=served["a"].credential)
    services.deployment_delete(actor=None, deployment=served["b"])


def test_an_old_break_does_not_hold_up_other_work(served: dict[str, Deployment]) -> None:
    chain("a", "b")
    credential = served["b"].credential
    credentials_seen(failed=[(credential.pk, timezone.now(), "authentication", "no")])
    services.credential_update(actor=None, credential=served["c"].credential, enabled=False)


@pytest.mark.usefixtures("served")
def test_a_model_in_a_chain_is_not_deleted() -> None:
    created = chain("a", "b")
    services.chain_delete(actor=None, chain=created)
    assert not FallbackChain.objects.exists()
