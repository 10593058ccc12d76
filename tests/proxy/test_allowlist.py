"""LiteLLM's own routes do not exist for anybody, however they are spelled."""

import importlib.util
import re
from pathlib import Path

import pytest

from proxy.routes import INFERENCE, MODEL_INFO, MODEL_LIST
from tests.proxy.conftest import Gateway

_DECORATOR = re.compile(
    r'@\w*(?:router|app)\.(?:get|post|put|patch|delete|api_route|head|options)\(\s*"(/[^"]*)"'
)
# Answered by the edge itself, and harmless.
_OURS = {
    "/health/liveliness",
    "/health/liveness",
    "/health/readiness",
    "/health",
    "/metrics",
    "/v1/models/{model_id}",
    "/models/{model_id}",
}


def litellm_routes() -> list[str]:
    """Paths of all route decorators in the installed LiteLLM proxy."""
    spec = importlib.util.find_spec("litellm")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    root = Path(spec.submodule_search_locations[0]) / "proxy"
    found: set[str] = set()
    for path in root.rglob("*.py"):
        found.update(_DECORATOR.findall(path.read_text(encoding="utf-8")))
    return sorted(found)


def _allowed(path: str) -> bool:
    raw = path.encode()
    return raw in INFERENCE or raw in MODEL_LIST or raw in MODEL_INFO or path in _OURS


def test_every_other_route_of_litellm_is_unknown(gateway: Gateway) -> None:
    routes = [path for path in litellm_routes() if not _allowed(path)]
    assert len(routes) > 300
    served = []
    with gateway.client() as client:
        for route in routes:
            path = re.sub(r"\{[^}]*\}", "x", route)
            for method in ("GET", "POST"):
                answer = client.request(method, path, json={})
                if answer.status_code != 404 or "error" not in answer.json():
                    served.append((method, route, answer.status_code))
    assert served == []


def test_the_allowlist_names_only_routes_that_litellm_has() -> None:
    routes = set(litellm_routes())
    assert {route.name for route in INFERENCE.values()} <= routes


SPELLINGS = [
    "/%76%31/chat/completions",
    "/v1/chat%2Fcompletions",
    "/v1%2fchat%2fcompletions",
    "//v1/chat/completions",
    "/v1//chat/completions",
    "/./v1/chat/completions",
    "/v1/../v1/chat/completions",
    "/v1/%2e%2e/v1/chat/completions",
    "/v1/chat/completions/",
    "/v1/chat/completions;x=1",
    "/V1/chat/completions",
    "/v1/Chat/Completions",
    "\\v1\\chat\\completions",
    "/v1/chat/completions%00",
    "/v1/chat/completions%3fx",
    "/v1/models/../../key/info",
    "/v1/models/%2e%2e/%2e%2e/key/generate",
    "/health/../key/generate",
    "/v1/chat/completions/../../../key/generate",
    "/openai/deployments/chat-openai/chat/completions",
    "/engines/chat-openai/chat/completions",
    "/key/generate",
    "//key/generate",
    "/%6bey/generate",
    "/key%2fgenerate",
    "/KEY/generate",
    "/ui",
    "/ui/",
    "/mcp",
    "/mcp/",
    "/docs",
    "/openapi.json",
    "/config/yaml",
    "/model/new",
    "/v1/model/new",
    "/spend/logs",
    "/global/spend",
    "/prompts/list",
    "/anthropic/v1/messages",
    "/vertex_ai/x",
    "/bedrock/x",
    "/config/pass_through_endpoint",
    "/",
    "",
]


@pytest.mark.parametrize("target", SPELLINGS)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_spellings_are_unknown(gateway: Gateway, target: str, method: str) -> None:
    # A raw request: clients tidy paths up before they send them.
    import http.client

    from tests.proxy.documents import new_key

    connection = http.client.HTTPConnection("127.0.0.1", gateway.replica.port, timeout=10)
    body = b'{"model":"chat-openai","messages":[{"role":"user","content":"hi"}]}'
    connection.putrequest(method, target or "/", skip_accept_encoding=True)
    connection.putheader("authorization", f"Bearer {new_key('alpha')}")
    connection.putheader("content-type", "application/json")
    connection.putheader("content-length", str(len(body)))
    connection.endheaders(body)
    answer = connection.getresponse()
    connection.close()
    assert answer.status in (400, 404)
    assert gateway.simulator.ledger()["rows"] == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "PATCH"])
def test_inference_takes_post_only(gateway: Gateway, method: str) -> None:
    with gateway.client() as client:
        assert client.request(method, "/v1/chat/completions").status_code == 405


def test_no_websockets(gateway: Gateway) -> None:
    headers = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    with gateway.client() as client:
        assert client.get("/v1/realtime", headers=headers).status_code == 404
        assert client.get("/v1/responses", headers=headers).status_code == 405
