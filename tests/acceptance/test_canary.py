"""Secrets that were entered or issued appear nowhere that somebody could read them."""

import os
import subprocess
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from gateway_admin.lib.embedded_state import EmbeddedState
from gateway_admin.supervisor.embedded import EmbeddedPostgres
from tests.acceptance.stack import ADMIN, PASSWORD, TOKEN, Stack

pytestmark = pytest.mark.fleet


def _use_everything(stack: Stack) -> None:
    """Calls that succeed, fail at the provider, and are refused; a connection test."""
    headers = {"Authorization": f"Bearer {stack.key}"}
    stack.simulator.control(kind="anthropic", faults=[{"type": "auth"}])
    stack.simulator.control(kind="gemini", faults=[{"type": "auth"}])
    for model in ("openai-chat", "anthropic-chat", "gemini-chat", "bedrock-chat", "unknown"):
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
        httpx.post(f"{stack.proxy}/v1/chat/completions", json=body, headers=headers, timeout=60)
    for secret in stack.secrets:
        wrong = {"Authorization": f"Bearer {secret}x"}
        httpx.post(f"{stack.proxy}/v1/chat/completions", json=body, headers=wrong)
    stack.simulator.reset()


def _dump(stack: Stack) -> str:
    state = EmbeddedState.read(stack.installation.data_dir)
    assert state
    postgres = EmbeddedPostgres(stack.installation.data_dir / "pg", state.postgres)
    done = subprocess.run(
        [postgres.bin_dir / "pg_dump", "--inserts", postgres.url],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    return done.stdout


def _files(stack: Stack) -> dict[str, str]:
    """Everything that the proxy and the control plane wrote to the data directory."""
    found = {}
    for path in stack.installation.data_dir.rglob("*"):
        if path.is_file() and "pg" not in path.relative_to(stack.installation.data_dir).parts[:1]:
            found[str(path)] = path.read_bytes().decode("latin-1")
    return found


def _answers(stack: Stack) -> dict[str, str]:
    """Pages, exports, API lists, metrics."""
    client = httpx.Client(base_url=stack.installation.web, timeout=30)
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    paths = ["metrics", "readyz"] + [
        f"api/v1/{name}"
        for name in (
            "credentials/",
            "deployments/",
            "keys/",
            "models/",
            "replicas/",
            "revisions/",
            f"usage/events/?from={since.replace('+', '%2B')}",
            "schema/",
        )
    ]
    found = {path: client.get(f"/{path}", headers=bearer).text for path in paths}
    for path in ("metrics", "health", "ready"):
        found[f"proxy {path}"] = httpx.get(f"{stack.proxy}/{path}").text
    models = httpx.get(
        f"{stack.proxy}/model/info", headers={"Authorization": f"Bearer {stack.key}"}
    )
    assert models.status_code == 200
    return found | {"model info": models.text}


def _exports(stack: Stack) -> dict[str, str]:
    """What a signed-in administrator can download or read."""
    with httpx.Client(base_url=stack.installation.web, timeout=30) as client:
        client.get("/account/login/")
        form = {"login": ADMIN, "password": PASSWORD}
        form["csrfmiddlewaretoken"] = client.cookies["csrftoken"]
        assert client.post("/account/login/", data=form).status_code == 302
        names = ("requests", "cost", "latency", "keys", "audit")
        paths = [f"/{name}/export.csv" for name in names]
        paths += ["/credentials/", "/deployments/", "/publish/", "/replicas/"]
        answers = {path: client.get(path) for path in paths}
    assert {answer.status_code for answer in answers.values()} == {200}
    assert "openai-chat" in answers["/requests/export.csv"].text
    return {path: answer.text for path, answer in answers.items()}


def test_no_secret_appears_anywhere(stack: Stack) -> None:
    _use_everything(stack)
    stack.wait_for(
        lambda: not any(worker["spool_events"] for worker in stack.workers()), "all delivered"
    )
    assert stack.running
    dump = _dump(stack)
    places = {
        "database dump": dump,
        "logs": stack.running.output,
        "process list": "\n".join(stack.installation.processes().values()),
        **_files(stack),
        **_answers(stack),
        **_exports(stack),
    }
    assert any("last_good" in name or "revision" in name for name in places), list(places)
    assert len(stack.secrets) >= 8
    leaks = [
        (name, secret[:12])
        for name, text in places.items()
        for secret in [*stack.secrets, TOKEN]
        if secret in text
    ]
    assert not leaks
