"""Which lane an attempt takes, and why.

The direct lane serves the first attempt on a deployment whose provider speaks OpenAI's wire
format, as long as LiteLLM would change nothing of the request that the lane cannot. All
other requests, and all attempts after a failure, are LiteLLM's.
"""

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from proxy.attempt import Call, Executor
from proxy.direct import DirectLane
from proxy.direct_request import Endpoint, endpoint_of, wire_body
from proxy.direct_rules import reason as reason_of
from proxy.litellm_lane import LiteLlmLane
from proxy.response_ids import ResponseIds
from proxy.snapshot import Deployment, Snapshot
from proxy.ticker import Ticker
from proxy.trace import Trace
from proxy.upstream import Upstream

if TYPE_CHECKING:
    from proxy.worker import Backend


@dataclass(frozen=True, slots=True)
class Prepared:
    """An attempt on a deployment, as the direct lane would make it."""

    deployment: Deployment
    endpoint: Endpoint | None  # None: it cannot
    payload: bytes
    reason: str  # why


class Lanes:
    """The executors of one worker."""

    def __init__(self, backend: "Backend", ticker: Ticker) -> None:
        self.upstream = Upstream(ticker)
        self._direct = DirectLane(self.upstream)
        self._litellm = LiteLlmLane(backend)
        self._backend = backend
        self._ids = ResponseIds(os.environ.get("LITELLM_SALT_KEY", ""))
        # By deployment: what it was made of, and the endpoint or why there is none.
        self._endpoints: dict[str, tuple[Deployment, Endpoint | str]] = {}

    async def configure(self, snapshot: Snapshot) -> None:
        """Take over the deployments of a revision; requests go on meanwhile."""
        found = {}
        for row in snapshot.deployments.values():
            known = self._endpoints.get(row.id)
            if known is None or known[0] != row:
                known = row, self._endpoint_of(row)
                await asyncio.sleep(0)
            found[row.id] = known
        self._endpoints = found

    def _endpoint_of(self, row: Deployment) -> Endpoint | str:
        if row.lane == "litellm":
            return "setting"
        return endpoint_of(row, self._backend.facts_of(row))

    def choose(
        self, call: Call, *, first: bool, prepared: "Prepared | None" = None
    ) -> tuple[Executor, str]:
        """The executor of an attempt, and why it is not the direct one."""
        trace, row = call.trace, call.deployment
        if not first:
            trace.seal_id = None
            return self._litellm, "retry"
        if prepared is None or prepared.deployment is not row:
            prepared = self.prepare(trace, row)
        if prepared.endpoint is None:
            return self._litellm, prepared.reason
        call.direct, call.payload = prepared.endpoint, prepared.payload
        return self._direct, ""

    def prepare(self, trace: Trace, row: Deployment) -> "Prepared":
        """What the direct lane would send to a deployment; or why it cannot."""
        trace.seal_id = None
        found = self._prepare(trace, row)
        if isinstance(found, str):
            trace.seal_id = None
            return Prepared(row, None, b"", found)
        return Prepared(row, *found, "")

    def _prepare(self, trace: Trace, row: Deployment) -> tuple[Endpoint, bytes] | str:
        _, endpoint = self._endpoints.get(row.id, (None, "provider"))
        if isinstance(endpoint, str):
            return endpoint
        if trace.inference is None or trace.inference.kind not in endpoint.heads:
            return "route"
        if not trace.body:
            return "form"
        body = trace.body
        if trace.inference.kind == "responses":
            continued = self._continued(row, body)
            if continued is None:
                return reason_of("previous_response_id")
            body = continued
            trace.seal_id = self._ids.sealer(endpoint.provider, row.id)
        wired = wire_body(endpoint, trace.inference.kind, body)
        if isinstance(wired, str):
            return wired
        return endpoint, orjson.dumps({**wired, "model": endpoint.model})

    def _continued(self, row: Deployment, body: dict[str, Any]) -> dict[str, Any] | None:
        """The body with the provider's own id of the response that it continues, if any."""
        previous = body.get("previous_response_id")
        if previous is None:
            return body
        opened = self._ids.open(previous) if isinstance(previous, str) else None
        if opened is None or opened[0] != row.id:
            return None
        return {**body, "previous_response_id": opened[1]}
