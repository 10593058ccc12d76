"""The only way in: pure ASGI in front of LiteLLM.

Order of decisions, each of which can end a request before the next is looked at:

    1. probes and metrics                     answered here, no key
    2. route on the allowlist?                404 whatever key is used
    3. key known, active, not expired?        401
    4. body within its limit and readable?    413, 400
    5. model known, allowed, deployed?        404, 403
    6. team, person, customer not blocked?    403
    7. LiteLLM there?                         503 with Retry-After
    8. kept in the response cache?            answered here
    9. within every limit and budget?         429 (see admission.py; asked by the relay, which
                                              knows the first deployment)

What passes goes to LiteLLM under our own path, without the client's query string and key,
with an allowlist of headers (see relay.py). Refusals of known keys are usage events.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from proxy import catalogue
from proxy.answer import gateway_headers, respond
from proxy.body import (
    ClientGone,
    clean_form,
    clean_json,
    form_fields,
    parse_form,
    parse_json,
    read_body,
    write_form,
)
from proxy.cache_replay import replay
from proxy.cache_rules import is_offered
from proxy.contract import KeyPolicy
from proxy.estimate import cap_output, demand_of
from proxy.policies import KEY_PREFIX, is_expired
from proxy.probes import PROBES, answer_probe
from proxy.refusals import (
    Refusal,
    bad_body,
    blocked_key,
    blocked_subject,
    expired_key,
    no_key,
    no_such_route,
    starting,
    unknown_key,
    unknown_model,
    wrong_method,
)
from proxy.relay import Relay
from proxy.required import check_required
from proxy.routes import INFERENCE, MODEL_INFO, MODEL_LIST, InferenceRoute, model_in_path
from proxy.snapshot import Snapshot
from proxy.trace import Trace
from proxy.usage import refused_event
from proxy.worker import Receive, Scope, Send, Worker

logger = logging.getLogger("gateway.edge")

_KEY_HEADERS = (b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key")
_JSON = b"application/json"
_OUR_BEARER = b"Bearer " + KEY_PREFIX.encode()
CUSTOMER_MAX_CHARS = 200


class Edge:
    """ASGI application of one worker."""

    def __init__(self, worker: Worker, *, on_started: Callable[[], Awaitable[None]]) -> None:
        self.worker = worker
        self._on_started = on_started

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request, or the worker's lifespan."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.worker.start()
            await self._on_started()
        except Exception as error:
            logger.critical("worker cannot start", exc_info=True)
            await send({"type": "lifespan.startup.failed", "message": type(error).__name__})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.worker.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
        raw_path = raw_path.partition(b"?")[0]
        if raw_path in PROBES:
            await answer_probe(self.worker, PROBES[raw_path], scope["method"], send)
            return
        route = INFERENCE.get(raw_path)
        try:
            if route is not None:
                await self._inference(route, scope, receive, send)
            else:
                await self._listing(raw_path, scope, send)
        except Refusal as refusal:
            anthropic_shape = route is not None and route.anthropic_shape
            await self._refuse(refusal, send, anthropic_shape=anthropic_shape)
        except ClientGone:
            return

    async def _refuse(
        self, refusal: Refusal, send: Send, *, anthropic_shape: bool, trace: Trace | None = None
    ) -> None:
        self.worker.metrics.refusals.labels(refusal.reason).inc()
        headers = refusal.headers()
        if trace is not None:
            self.worker.record(refused_event(trace, refusal))
            headers += gateway_headers(trace)
        body = refusal.body(anthropic_shape=anthropic_shape)
        await respond(send, refusal.status, body, headers)

    # --- listing routes ------------------------------------------------------------------

    async def _listing(self, raw_path: bytes, scope: Scope, send: Send) -> None:
        name = model_in_path(raw_path) if scope["method"] == "GET" else None
        if raw_path not in MODEL_LIST and raw_path not in MODEL_INFO and name is None:
            raise no_such_route(raw_path.decode("latin-1"))
        if scope["method"] != "GET":
            raise wrong_method(scope["method"], raw_path.decode("latin-1"), "GET")
        policy = self._usable(self._identify(scope))
        snapshot = self._snapshot()
        anthropic_shape = _header(scope, b"anthropic-version") is not None
        answer: dict[str, Any]
        if raw_path in MODEL_INFO:
            answer = catalogue.model_info(policy, snapshot)
        elif raw_path in MODEL_LIST:
            answer = catalogue.model_list(policy, snapshot, anthropic_shape=anthropic_shape)
        else:
            names = catalogue.usable_names(policy, snapshot)
            if name not in names:
                raise unknown_model(name or "", names)
            answer = (
                catalogue.anthropic_model(name)
                if anthropic_shape
                else catalogue.model_entry(snapshot, name)
            )
        await respond(send, 200, orjson.dumps(answer), [])

    # --- identity ------------------------------------------------------------------------

    def _identify(self, scope: Scope) -> KeyPolicy:
        """Policy of the presented key, or the Refusal for a key nobody knows."""
        key = _presented_key(scope)
        if not self.worker.policies_known:
            # Not 401: the key may be good, we just cannot tell yet.
            raise starting()
        if key is None:
            raise no_key()
        policy = self.worker.policies.find(key)
        if policy is None:
            raise unknown_key()
        return policy

    def _usable(self, policy: KeyPolicy) -> KeyPolicy:
        if policy["state"] != "active":
            raise blocked_key(policy)
        if is_expired(policy, self.worker.clock.now()):
            raise expired_key(policy)
        return policy

    def _check_blocks(self, trace: Trace) -> None:
        """The team, the person or the customer may be blocked, whatever the key says."""
        if not self.worker.policies.any_blocked:
            return
        environment = self.worker.settings.fleet.environment
        for rules in self.worker.policies.path_of(trace.policy, trace.customer, environment):
            if rules.blocked is not None:
                self.worker.metrics.admission.refused(rules.scope, "blocked")
                raise blocked_subject(rules.scope, rules.name, rules.blocked)

    def _snapshot(self) -> Snapshot:
        if self.worker.snapshot is None:
            raise starting()
        return self.worker.snapshot

    # --- inference -----------------------------------------------------------------------

    async def _inference(
        self, route: InferenceRoute, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if scope["method"] != "POST":
            raise wrong_method(scope["method"], route.name, "POST")
        policy = self._identify(scope)
        trace = Trace(
            route=route.name,
            policy=policy,
            inference=route,
            started_at=self.worker.clock.now(),
        )
        try:
            self._usable(policy)
            trace.snapshot = self._snapshot()
            form, content_type = await self._prepare(trace, scope, receive)
            self._check_blocks(trace)
            if self.worker.backend is None:
                raise starting()
        except Refusal as refusal:
            await self._refuse(refusal, send, anthropic_shape=route.anthropic_shape, trace=trace)
            return
        if is_offered(trace):
            kept = await self.worker.cache.lookup(trace, scope["headers"])
            if kept is not None:
                await replay(self.worker, trace, kept, send)
                return
        spent = self.worker.admission.spent(trace)
        if spent is not None:
            await self._refuse(spent, send, anthropic_shape=route.anthropic_shape, trace=trace)
            return
        relay = Relay(self.worker, trace, scope, send)
        await relay.run(form, content_type)

    async def _prepare(self, trace: Trace, scope: Scope, receive: Receive) -> tuple[bytes, bytes]:
        """Read, check and rewrite the body; fill the trace. Gives form and content type."""
        assert trace.inference is not None
        raw = await read_body(scope, receive, self.worker.settings.max_body_bytes)
        content_type = (_header(scope, b"content-type") or _JSON).decode("latin-1")
        multipart = content_type.lower().startswith("multipart/form-data")
        if multipart and trace.inference.body == "json":
            raise bad_body(f"{trace.route} takes a JSON object, not a form.")
        if not multipart and trace.inference.body == "multipart":
            raise bad_body(f"{trace.route} takes a multipart form with a file.")
        if multipart:
            boundary, parts = parse_form(raw, content_type)
            parts = clean_form(parts)
            fields, kind = form_fields(parts), trace.inference.kind
            self._choose(trace, fields)
            trace.demand = demand_of(fields, kind, body_bytes=len(raw), form=True)
            return write_form(boundary, parts, trace.model), content_type.encode("latin-1")
        body = parse_json(raw)
        self._choose(trace, body)
        clean_json(body, trace.inference)
        check_required(body, trace.inference)
        body["model"] = trace.model
        kind = trace.inference.kind
        if trace.streaming and kind in ("chat", "completion"):
            _ask_for_usage(trace, body)
        cap_output(body, kind, trace.policy, self._snapshot().environment)
        trace.body = body
        # As text, without the escapes that some clients write instead of letters.
        trace.body_bytes = len(orjson.dumps(body)) if b"\\u" in raw else len(raw)
        return b"", _JSON

    def _choose(self, trace: Trace, fields: dict[str, Any]) -> None:
        """Model and the facts of the request that the event will carry."""
        assert trace.snapshot is not None
        name = fields.get("model")
        if name is not None and not isinstance(name, str):
            raise bad_body("'model' must be a string.", param="model")
        trace.requested_model = (name or "")[:200]
        trace.streaming = fields.get("stream") in (True, "true", "True", "1")
        trace.customer = _customer(fields)
        trace.model = catalogue.choose_model(trace.policy, trace.snapshot, name or "")


def _ask_for_usage(trace: Trace, body: dict[str, Any]) -> None:
    """Streams tell their usage only when asked; the relay takes it out again if we asked."""
    options = body.get("stream_options")
    options = dict(options) if isinstance(options, dict) else {}
    trace.usage_wanted = options.get("include_usage") is True
    body["stream_options"] = {**options, "include_usage": True}


def _customer(fields: dict[str, Any]) -> str:
    user = fields.get("user")
    if user is None and isinstance(fields.get("metadata"), dict):
        user = fields["metadata"].get("user_id")
    # As the ledger can hold it: counters and ledger must speak of the same customer.
    return user[:CUSTOMER_MAX_CHARS].replace("\0", "\ufffd") if isinstance(user, str) else ""


def _header(scope: Scope, wanted: bytes) -> bytes | None:
    for name, value in scope["headers"]:
        if name == wanted:
            return bytes(value)
    return None


def _presented_key(scope: Scope) -> str | None:
    """The virtual key, from whichever header the client's library uses for keys."""
    found: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        if name == b"authorization" and value.startswith(_OUR_BEARER):
            return str(value[7:].decode("latin-1").strip())
        if name in _KEY_HEADERS and name not in found:
            found[name] = value.decode("latin-1").strip()
    bearer = found.get(b"authorization", "")
    if bearer[:7].lower() == "bearer ":
        found[b"authorization"] = bearer[7:].strip()
    keys = [found[name] for name in _KEY_HEADERS if found.get(name)]
    return next((key for key in keys if key.startswith(KEY_PREFIX)), keys[0] if keys else None)
