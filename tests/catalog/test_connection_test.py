"""*Test*: one real call for every kind of provider, against the simulator."""

import json
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

# Before litellm is imported: neither fetches anything nor reads a .env file.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
os.environ.setdefault("LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS", "True")
os.environ.setdefault("LITELLM_MODE", "PRODUCTION")

from gateway_admin.accounts.models import AuditEvent
from gateway_admin.catalog import connection_test, kinds, probe, services
from gateway_admin.catalog.models import Deployment
from gateway_admin.demo.simulator.connections import connection_params
from gateway_admin.demo.simulator.process import Simulator, running_simulator
from tests.catalog import build
from tests.people import People

AWS = {"aws_access_key_id": "AKIACANARY001234", "aws_secret_access_key": build.SECRET}
CHAT = {
    "openai": "gpt-4o",
    "anthropic": "claude-sonnet-4-6",
    "gemini": "gemini-2.5-flash",
    "azure": "gpt-4o",
    "bedrock": "anthropic.claude-3-5-sonnet-20240620-v1:0",
    "ollama": "llama3.2",
}


@pytest.fixture(scope="module")
def simulator_process() -> Iterator[Simulator]:
    with running_simulator() as simulator:
        yield simulator


@pytest.fixture
def simulator(simulator_process: Simulator) -> Simulator:
    simulator_process.reset()
    return simulator_process


def deployed(
    simulator: Simulator, kind: str, upstream: str = "", mode: str = "chat", **fields: Any
) -> Deployment:
    secret = {"bedrock": AWS, "ollama": {}}.get(kind, {"api_key": build.SECRET})
    credential = build.credential(
        f"{kind}-main",
        of=build.provider(kind, kind.title()),
        secret=secret,
        params=connection_params(kind, simulator.base_url),
    )
    return build.deployment(
        model_name=build.model(f"model-{kind}", mode=mode).name,
        behind=credential,
        upstream_model=upstream or CHAT[kind],
        **fields,
    )


def order_of(deployment: Deployment, timeout_s: float = 10) -> dict[str, Any]:
    secret = deployment.credential.secret
    return {
        "mode": deployment.model.mode,
        "timeout_s": timeout_s,
        "params": {
            **kinds.litellm_params(deployment),
            **(services.secret_open(secret) if secret else {}),
        },
    }


@pytest.mark.django_db
@pytest.mark.parametrize("kind", list(CHAT))
def test_it_reaches_every_kind(simulator: Simulator, kind: str) -> None:
    answer = probe.probe(order_of(deployed(simulator, kind)))
    assert answer["ok"], answer
    assert answer["usage"]["input_tokens"] > 0
    assert answer["usage"]["output_tokens"] > 0
    assert simulator.settled_ledger()["rows"][0]["kind"] == kind


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("mode", "upstream"),
    [
        ("embedding", "text-embedding-3-small"),
        ("responses", "gpt-4o"),
        ("completion", "gpt-3.5-turbo-instruct"),
        ("image_generation", "gpt-image-1"),
        ("audio_speech", "tts-1"),
        ("audio_transcription", "whisper-1"),
        ("moderation", "omni-moderation-latest"),
    ],
)
def test_it_speaks_every_mode(simulator: Simulator, mode: str, upstream: str) -> None:
    answer = probe.probe(order_of(deployed(simulator, "openai", upstream, mode)))
    assert answer["ok"], answer


@pytest.mark.django_db
@pytest.mark.parametrize("kind", list(CHAT))
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("auth", {"authentication"}),
        ("permission", {"permission"}),
        ("not_found", {"not_found"}),
        ("rate_limit", {"rate_limit"}),
        ("overload", {"overloaded", "server_error", "rate_limit"}),
        ("server_error", {"server_error", "overloaded"}),
    ],
)
def test_it_names_what_is_wrong(
    simulator: Simulator, kind: str, fault: str, expected: set[str]
) -> None:
    simulator.control(kind=kind, faults=[{"type": fault}])
    answer = probe.probe(order_of(deployed(simulator, kind)))
    assert not answer["ok"]
    assert connection_test.classify(answer["error"]) in expected, answer


@pytest.mark.django_db
def test_it_gives_up_when_nobody_answers(simulator: Simulator) -> None:
    simulator.control(kind="openai", faults=[{"type": "timeout", "hang_s": 30}])
    answer = probe.probe(order_of(deployed(simulator, "openai"), timeout_s=1))
    assert connection_test.classify(answer["error"]) == "timeout"


@pytest.mark.django_db
@pytest.mark.parametrize("kind", ["openai", "ollama", "anthropic"])
def test_it_says_that_nobody_listens(simulator: Simulator, kind: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    deployment = deployed(simulator, kind)
    order = order_of(deployment)
    order["params"]["api_base"] = address
    answer = probe.probe(order)
    assert connection_test.classify(answer["error"]) == "connection", answer


@pytest.mark.django_db
def test_the_whole_test_in_its_own_process(simulator: Simulator, people: People) -> None:
    deployment = deployed(simulator, "openai", "gpt-4o")
    result = services.connection_test(deployment=deployment, actor=people.admin)
    assert result["state"] == "ok", result
    expected = result["input_tokens"] * 25 + result["output_tokens"] * 100
    assert result["cost"].rstrip("0") == f"{expected / 10_000_000:.7f}".rstrip("0")
    deployment.refresh_from_db()
    assert deployment.last_test == result
    deployment.credential.refresh_from_db()
    assert deployment.credential.last_success_at is not None
    assert AuditEvent.objects.filter(action="deployment.test").count() == 1


@pytest.mark.django_db
def test_a_refusal_is_remembered_without_the_secret(
    simulator: Simulator, people: People, caplog: Any
) -> None:
    message = f"Incorrect API key provided: {build.SECRET}."
    simulator.control(kind="openai", faults=[{"type": "auth", "message": message}])
    deployment = deployed(simulator, "openai")
    result = services.connection_test(deployment=deployment, actor=people.admin)
    assert (result["state"], result["error_class"]) == ("error", "authentication")
    assert result["status"] == 401
    assert "Replace its secret" in result["advice"]
    assert "Incorrect API key" in result["message"]
    deployment.credential.refresh_from_db()
    assert deployment.credential.is_refused
    everything = json.dumps(result) + deployment.credential.last_error + caplog.text
    assert build.SECRET not in everything + json.dumps(list(AuditEvent.objects.values("changes")))


def test_the_helper_sees_nothing_of_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "GATEWAY_SECRET_KEY", "REDIS_URL", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "x")
        assert not connection_test._PASSED_ON.match(name)
    assert connection_test._PASSED_ON.match("HTTPS_PROXY")
