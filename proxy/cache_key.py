"""Which answer belongs to which request: the key of a cached answer.

The key is a keyed hash (HMAC-SHA256 under a key that only the environment's replicas can
derive) over everything that an answer can depend on:

    tenant      the key's team, or the key itself when it has none; nobody else's
    version     raised by a purge: what was kept before is never found again
    route, model, and what is behind the model: its deployments and chains
    caps        output tokens that are filled in where a request states none
    headers     those that are passed on to the provider
    body        byte for byte as it is passed on, names in the client's order (the order of
                a schema's properties changes what a model writes), and what the client
                asked of the stream

Nothing is left out for being likely to change nothing.
"""

import hmac
from collections.abc import Iterable

import orjson
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from proxy.cache_entry import FORMAT
from proxy.contract import CHAIN_KINDS
from proxy.contract.counters import tag
from proxy.snapshot import Snapshot
from proxy.trace import Trace

_PASSED_ON = frozenset({b"accept", b"user-agent", b"anthropic-version", b"anthropic-beta"})

Headers = Iterable[tuple[bytes, bytes]]


def derived_key(fleet_key: bytes, environment: str, purpose: str) -> bytes:
    """32 bytes for one purpose, of no use for another (HKDF, RFC 5869)."""
    info = f"gateway response cache {FORMAT}:{environment}:{purpose}".encode()
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(fleet_key)


class CacheKeys:
    """Names of entries in Redis."""

    def __init__(self, fleet_key: bytes, environment: str) -> None:
        self._environment = environment
        self._key = derived_key(fleet_key, environment, "names")
        self._keyed = hmac.new(self._key, digestmod="sha256")
        self._prefix = f"{tag(environment)}answer:"
        self._digest = ""  # of the snapshot that `_behind` speaks of
        self._behind: dict[str, str] = {}

    def name(self, trace: Trace, headers: Headers, body: bytes) -> str:
        """Redis key of the answer to a request whose body is passed on as `body`."""
        assert trace.snapshot is not None
        policy = trace.policy
        tenant = ["team", policy["team_id"]] if policy["team_id"] else ["key", policy["key_id"]]
        facts = [
            tenant,
            policy.get("cache_version", 1),
            trace.route,
            trace.model,
            self._behind_model(trace.snapshot, trace.model),
            [policy.get("max_output_tokens"), trace.snapshot.environment["default_output_tokens"]],
            [[n.decode("latin-1"), v.decode("latin-1")] for n, v in headers if n in _PASSED_ON],
            [trace.streaming, trace.usage_wanted],
        ]
        # JSON has no zero byte, so facts and body cannot be shifted into each other.
        keyed = self._keyed.copy()
        keyed.update(orjson.dumps(facts) + b"\0" + body)
        return f"{self._prefix}{keyed.hexdigest()}"

    def sizes(self) -> str:
        """Redis key of the bytes that are kept, by the hour in which they expire."""
        return f"{tag(self._environment)}answer-bytes"

    def _behind_model(self, snapshot: Snapshot, model: str) -> str:
        if snapshot.digest != self._digest:
            self._digest, self._behind = snapshot.digest, {}
        found = self._behind.get(model)
        if found is None:
            found = self._behind[model] = self._describe(snapshot, model)
        return found

    def _describe(self, snapshot: Snapshot, model: str) -> str:
        """Digest of all that decides who answers; parameters hold secrets, hence keyed."""
        rows = [[d.id, d.provider_kind, d.params] for d in snapshot.by_model.get(model, ())]
        chains = [snapshot.chains.get((model, kind), ()) for kind in CHAIN_KINDS]
        facts = orjson.dumps([rows, chains], default=_plain, option=orjson.OPT_SORT_KEYS)
        return hmac.digest(self._key, facts, "sha256").hex()


def _plain(value: object) -> object:
    """Mappings and tuples of other types than orjson knows."""
    try:
        return dict(value)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        return repr(value)
