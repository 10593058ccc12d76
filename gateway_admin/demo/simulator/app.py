"""The ASGI application: `/{provider}/...` and the simulator's own routes, which begin with `__`."""

from typing import Any
from urllib.parse import parse_qsl, unquote

import orjson

from gateway_admin.demo.simulator import anthropic, azure, bedrock, cohere, gemini, ollama, openai
from gateway_admin.demo.simulator.engine import Connection, Engine, Receive, Send
from gateway_admin.demo.simulator.received import Received
from gateway_admin.demo.simulator.script import ScriptError
from gateway_admin.demo.simulator.wire import Provider, Request, dump

_MODULES = (openai, anthropic, gemini, azure, bedrock, ollama, cohere)
PROVIDERS: dict[str, Provider] = {module.PROVIDER.kind: module.PROVIDER for module in _MODULES}


class Simulator:
    """One simulator with its own state."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.received = Received()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Serve one HTTP request (no lifespan, no web sockets)."""
        request = await _read(scope, receive)
        connection = Connection(receive, send)
        prefix, rest = request.segments[0], request.segments[1:]
        provider = PROVIDERS.get(prefix)
        if provider is not None:
            request.segments = rest
            self.received.add(scope, request.body)
            await self.engine.serve(provider, request, connection)
            return
        status, body = self._manage(request)
        await connection.whole(status, "application/json", [], dump(body))

    def _manage(self, request: Request) -> tuple[int, Any]:
        match request.method, request.segments[0]:
            case "GET", "__health":
                return 200, {"status": "ok", "providers": sorted(PROVIDERS)}
            case "GET", "__ledger":
                detail = request.query.get("detail", "0") not in ("", "0")
                return 200, self.engine.ledger.report(detail=detail)
            case "DELETE", "__ledger":
                self.engine.ledger.reset()
                return 200, {"status": "reset"}
            case "GET", "__received":
                return 200, {"requests": self.received.report()}
            case "DELETE", "__received":
                self.received.reset()
                return 200, {"status": "reset"}
            case "GET", "__control":
                return 200, {"rules": self.engine.script.describe()}
            case "POST", "__control":
                return self._control(request.body)
            case "DELETE", "__control":
                self.engine.script.reset()
                self.engine.prompts.reset()
                return 200, {"rules": []}
        return 404, {"error": f"nothing here; providers are {', '.join(sorted(PROVIDERS))}"}

    def _control(self, body: bytes) -> tuple[int, Any]:
        """Add a rule, a list of rules, or `{"rules": [...], "seed": n}`."""
        try:
            spec = orjson.loads(body)
            if isinstance(spec, dict) and "seed" in spec:
                self.engine.script.seed(int(spec.pop("seed")))
                spec = spec.get("rules", [])
            for rule in spec if isinstance(spec, list) else [spec]:
                self.engine.script.add(rule)
        except (ScriptError, ValueError) as problem:
            return 400, {"error": str(problem)}
        return 200, {"rules": self.engine.script.describe()}


async def _read(scope: dict[str, Any], receive: Receive) -> Request:
    parts: list[bytes] = []
    more = True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    raw_path: bytes = scope["raw_path"]
    path = raw_path.split(b"?", 1)[0].decode("latin-1").strip("/")
    return Request(
        method=scope["method"],
        segments=tuple(unquote(segment) for segment in path.split("/")),
        query=dict(parse_qsl(scope["query_string"].decode("latin-1"))),
        headers={name.decode("latin-1"): text.decode("latin-1") for name, text in scope["headers"]},
        body=parts[0] if len(parts) == 1 else b"".join(parts),
    )
