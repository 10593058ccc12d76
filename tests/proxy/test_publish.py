"""Revisions: swapped under load, rejected when broken, never half applied."""

import copy
import time
from typing import Any

import pytest

from gateway_admin.demo.simulator.connections import connection_params
from proxy.contract import RevisionDocument, RevisionEnvelope
from tests.proxy.conftest import CANARY, Gateway, standard_document, standard_secrets
from tests.proxy.documents import credential, deployment, document, envelope
from tests.proxy.load import HELLO, steady_load


def chat(gateway: Gateway, model: str = "chat-openai") -> Any:
    with gateway.client() as client:
        return client.post("/v1/chat/completions", json={"model": model, "messages": HELLO})


def test_alias_switches_with_one_publish(gateway: Gateway) -> None:
    content = standard_document(gateway.simulator)
    content["aliases"] = {"default": "chat-gemini"}
    gateway.peer.wait_applied(gateway.peer.publish(content, standard_secrets()))
    assert gateway.event(chat(gateway, "default"))["model"] == "chat-gemini"


def test_rotated_credential_is_used_at_once(gateway: Gateway) -> None:
    chat(gateway)
    content = standard_document(gateway.simulator)
    params = connection_params("openai", gateway.simulator.base_url)
    content["credentials"] = [
        credential("openai", {"api_key": "sk-rotated-0000-9876"}, **params)
        if row["id"] == "openai"
        else row
        for row in content["credentials"]
    ]
    secrets = standard_secrets() | {"openai": {"api_key": "sk-rotated-0000-9876"}}
    gateway.peer.wait_applied(gateway.peer.publish(content, secrets))
    gateway.simulator.reset()
    assert chat(gateway).status_code == 200
    (row,) = gateway.simulator.ledger()["rows"]
    assert row["credential"] == "...9876"


def test_removed_model_is_unknown(gateway: Gateway) -> None:
    content = standard_document(gateway.simulator)
    content["deployments"] = [r for r in content["deployments"] if r["model"] != "chat-ollama"]
    content["models"] = [row for row in content["models"] if row["name"] != "chat-ollama"]
    gateway.peer.wait_applied(gateway.peer.publish(content, standard_secrets()))
    assert chat(gateway, "chat-ollama").status_code == 404


def _unknown_provider(content: RevisionDocument) -> str:
    content["deployments"][0]["litellm_model"] = "no-such-provider/x"
    return content["deployments"][0]["id"]


def _broken_parameter(content: RevisionDocument) -> str:
    content["deployments"][1]["params"] = {"timeout": {"not": "a number"}}
    return content["deployments"][1]["id"]


def _bad_price(content: RevisionDocument) -> str | None:
    price = content["deployments"][0]["price"]
    assert price is not None
    price["units"] = {"input_token": "a lot"}
    return None


def _unknown_model(content: RevisionDocument) -> str | None:
    content["aliases"] = {"default": "nothing"}
    return None


@pytest.mark.parametrize(
    "spoil", [_unknown_provider, _broken_parameter, _bad_price, _unknown_model]
)
def test_document_that_cannot_be_built_is_rejected(gateway: Gateway, spoil: Any) -> None:
    content = copy.deepcopy(standard_document(gateway.simulator))
    at_fault = spoil(content)
    number = gateway.peer.publish(content, standard_secrets())
    _wait_rejected(gateway, number, at_fault)
    assert chat(gateway).status_code == 200
    health = gateway.client().get("/health").json()
    assert health["status"] == "degraded"
    assert f"revision {number} rejected" in health["reasons"][0]
    good = gateway.peer.publish(standard_document(gateway.simulator), standard_secrets())
    gateway.peer.wait_applied(good)
    gateway.peer.wait_for("healthy", lambda: gateway.peer.reports[-1]["healthy"])


def _wait_rejected(gateway: Gateway, number: int, at_fault: str | None) -> None:
    def rejected() -> bool:
        report = gateway.peer.reports[-1]
        return report["rejected_revision"] == number

    gateway.peer.wait_for(f"revision {number} rejected", rejected)
    report = gateway.peer.reports[-1]
    assert report["rejected_deployment"] == at_fault
    assert report["rejected_error"]
    assert "canary" not in report["rejected_error"]
    assert report["applied_revision"] != number
    if at_fault is not None:
        assert at_fault in report["rejected_error"]  # names equal ids here


def _digest(sent: RevisionEnvelope) -> None:
    sent["digest"] = "0" * 64


def _secret_of_another_fleet(sent: RevisionEnvelope) -> None:
    sent["secrets"]["secret-openai"] = sent["secrets"]["secret-azure"]


def _missing_secret(sent: RevisionEnvelope) -> None:
    del sent["secrets"]["secret-openai"]


def _other_schema(sent: RevisionEnvelope) -> None:
    sent["document"]["schema"] = 99


@pytest.mark.parametrize(
    "spoil", [_digest, _secret_of_another_fleet, _missing_secret, _other_schema]
)
def test_envelope_that_does_not_verify_is_rejected(gateway: Gateway, spoil: Any) -> None:
    sent = envelope(0, standard_document(gateway.simulator), standard_secrets())
    spoil(sent)
    number = gateway.peer.publish_raw(sent)
    gateway.peer.wait_for(
        "rejected", lambda: gateway.peer.reports[-1]["rejected_revision"] == number
    )
    assert chat(gateway).status_code == 200
    gateway.peer.publish(standard_document(gateway.simulator), standard_secrets())
    gateway.peer.wait_for("healthy", lambda: gateway.peer.reports[-1]["healthy"])


def hundred(gateway: Gateway, variant: int) -> RevisionDocument:
    """100 deployments, 40 of which differ from one variant to the next."""
    params = connection_params("openai", gateway.simulator.base_url)
    rows = [
        deployment(
            f"d{n:03}", f"m{n // 4}", "openai/gpt-4o", "openai",
            weight=1 + (variant % 2 if n % 5 < 2 else 0),
        )
        for n in range(100)
    ]  # fmt: skip
    secret = {"api_key": CANARY}
    return document(rows, [credential("openai", secret, **params)])


def test_publish_under_load_loses_no_request(gateway: Gateway) -> None:
    secrets = {"openai": {"api_key": CANARY}}
    gateway.peer.wait_applied(gateway.peer.publish(hundred(gateway, 0), secrets))
    with steady_load(gateway.url, "m0") as load:
        for variant in range(1, 9):
            number = gateway.peer.publish(hundred(gateway, variant), secrets)
            gateway.peer.wait_applied(number)
            time.sleep(0.2)
    assert load.failures == []
    assert load.broken == 0
    assert len(load.answered) > 20
