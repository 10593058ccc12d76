"""Canaries: no credential and no virtual key leaves the process' memory."""

import os
from pathlib import Path
from typing import Any

import httpx

from tests.proxy.conftest import CANARY, FAULTY, Gateway
from tests.proxy.documents import FLEET_KEY, FLEET_TOKEN, new_key

HELLO: Any = [{"role": "user", "content": "hi"}]
AWS = "AKIACANARY0012345678"


def test_canaries_are_nowhere(gateway: Gateway) -> None:
    seen = []
    gateway.simulator.control(
        kind="openai",
        model="gpt-4o",
        faults=[{"type": "status", "status": 400, "message": f"bad key {CANARY} refused"}],
    )
    with gateway.client() as client:
        for model in [*FAULTY, "chat-openai", "chat-bedrock"]:
            for stream in (False, True):
                body = {"model": model, "messages": HELLO, "stream": stream}
                try:
                    answer = client.post("/v1/chat/completions", json=body)
                except httpx.HTTPError:
                    continue
                seen += [answer.text, str(answer.headers)]
        for path in ("/health", "/ready", "/metrics", "/v1/models", "/model/info"):
            answer = client.get(path)
            seen += [answer.text, str(answer.headers)]
    gateway.peer.wait_delivered()
    seen.append(str(list(gateway.peer.events.values())))
    seen.append(str(gateway.peer.reports[-50:]))
    seen.append(gateway.replica.log_path.read_text())
    seen += [
        path.read_bytes().decode("latin-1")
        for path in gateway.replica.state_dir.rglob("*")
        if path.is_file()
    ]
    assert gateway.replica.process is not None
    for pid in [gateway.replica.process.pid, *gateway.replica.children()]:
        seen.append(Path(f"/proc/{pid}/cmdline").read_text())
    everything = "\n".join(seen)
    assert len(everything) > 10_000
    for canary in (CANARY, AWS, new_key("alpha"), FLEET_TOKEN, FLEET_KEY.hex()):
        assert canary not in everything


def test_files_are_for_the_owner_alone(gateway: Gateway) -> None:
    modes = {
        path: os.stat(path).st_mode & 0o077
        for path in gateway.replica.state_dir.rglob("*")
        if path.exists() and "metrics" not in path.parts
    }
    assert {path: mode for path, mode in modes.items() if mode} == {}


def test_virtual_key_never_reaches_the_provider(gateway: Gateway) -> None:
    with gateway.client() as client:
        client.post("/v1/chat/completions", json={"model": "chat-openai", "messages": HELLO})
    (row,) = gateway.simulator.ledger()["rows"]
    assert row["credential"] == f"...{CANARY[-4:]}"
