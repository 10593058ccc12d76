"""Scripted behaviour: how fast a model answers, and how it fails.

A rule says for whom it holds (`kind`, `model`, `credential`; left out: for all; a model may be
a pattern such as `gpt-*`), its pace, and its faults:

    {"kind": "openai", "model": "gpt-4o", "credential": "sk-...",
     "latency_ms": 40, "first_token_ms": 200, "token_interval_ms": 10, "output_tokens": 30,
     "faults": [{"type": "rate_limit", "retry_after_s": 2, "first": 3},
                {"type": "cut_stream", "after_chunks": 5, "probability": 0.1}]}

A rule replaces an earlier one for the same kind, model and credential. When several match, the
most specific one that sets a pace wins (credential before model before kind), and their faults
are tried in that order: the first that fires is the call's fault. `first: n` fires on the first
n calls that reach it, `every: k` on each k-th, `probability: p` by a seeded draw; with none of
the three it always fires. Credentials are kept masked.

A whole reply takes as long as its stream would. Faults that break a stream off become, for a
whole reply, a closed connection (`cut_stream`) or an overload (`stream_error`); an answer with
fewer tokens than `after_chunks` completes.

A model whose name contains `sim-<fault>` or `sim-status-<n>` always fails that way.
"""

import random
import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from gateway_admin.demo.simulator.ledger import mask
from gateway_admin.demo.simulator.wire import CASES

# Faults beside the failure cases of `wire.CASES`, which are answered in the provider's words.
SPECIAL_FAULTS = (
    "status",  # any status, in the provider's error shape
    "timeout",  # accepts the request and says nothing for hang_s
    "disconnect",  # closes the connection before the body
    "cut_stream",  # closes the connection after after_chunks tokens
    "stream_error",  # an error event inside a 200 stream after after_chunks tokens
    "slow_first_token",  # first token after first_token_ms (default 5,000)
    "malformed",  # a 200 whose body is not valid
    "empty",  # a 200 without a body; as a stream, without an event
)
FAULTS = (*CASES, *SPECIAL_FAULTS)
DEFAULT_HANG_S = 600.0
_MAGIC = re.compile(r"sim-(status-(\d{3})|[a-z]+(?:-[a-z]+)*)")


class ScriptError(ValueError):
    """A rule is not understood; the message names the field."""


@dataclass(slots=True)
class Fault:
    """One way to fail, and when."""

    type: str
    status: int | None = None
    message: str | None = None
    retry_after_s: float | None = None
    headers: dict[str, str] = field(default_factory=dict)
    after_chunks: int = 3
    hang_s: float = DEFAULT_HANG_S
    first_token_ms: float = 5_000
    probability: float | None = None
    first: int | None = None
    every: int | None = None
    calls: int = 0

    def fires(self, draw: random.Random) -> bool:
        """Count the call and return whether it fails."""
        self.calls += 1
        if self.first is not None:
            return self.calls <= self.first
        if self.every is not None:
            return self.calls % self.every == 0
        if self.probability is not None:
            return draw.random() < self.probability
        return True


@dataclass(slots=True)
class Rule:
    """Behaviour of the calls that match. Pace in milliseconds, None: not set by this rule."""

    kind: str | None = None
    model: str | None = None
    credential: str | None = None  # masked
    latency_ms: float | None = None
    first_token_ms: float | None = None
    token_interval_ms: float | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    faults: list[Fault] = field(default_factory=list)

    @property
    def target(self) -> tuple[str | None, str | None, str | None]:
        return self.kind, self.model, self.credential

    @property
    def weight(self) -> int:
        exact = self.model is not None and not set(self.model) & set("*?[")
        return (
            8 * (self.credential is not None)
            + 2 * (self.model is not None)
            + 2 * exact
            + (self.kind is not None)
        )

    def matches(self, kind: str, model: str, credential: str) -> bool:
        return (
            self.kind in (None, kind)
            and self.credential in (None, credential)
            and (self.model is None or fnmatchcase(model, self.model))
        )


@dataclass(slots=True)
class Behaviour:
    """What one call is to do."""

    latency_ms: float = 0.0
    first_token_ms: float = 0.0
    token_interval_ms: float = 0.0
    output_tokens: int | None = None
    reasoning_tokens: int = 0
    fault: Fault | None = None


_PACE = ("latency_ms", "first_token_ms", "token_interval_ms", "output_tokens", "reasoning_tokens")


class Script:
    """The rules in force."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all rules; answers are immediate and right again."""
        self._rules: list[Rule] = []
        self._draw = random.Random(0)

    def add(self, spec: Any) -> None:
        """Add or replace a rule given as JSON."""
        rule = parse_rule(spec)
        self._rules = [old for old in self._rules if old.target != rule.target]
        self._rules.append(rule)
        self._rules.sort(key=lambda one: -one.weight)

    def seed(self, number: int) -> None:
        """Restart the draws of faults with a probability."""
        self._draw = random.Random(number)

    def behaviour(self, kind: str, model: str, credential: str) -> Behaviour:
        """Return what this call is to do, and count it."""
        result = Behaviour()
        matching = [rule for rule in self._rules if rule.matches(kind, model, credential)]
        for name in _PACE:
            for rule in matching:
                value = getattr(rule, name)
                if value is not None:
                    setattr(result, name, value)
                    break
        faults = (fault for rule in matching for fault in rule.faults)
        result.fault = next((fault for fault in faults if fault.fires(self._draw)), None)
        if result.fault is None and "sim-" in model:
            result.fault = _magic_fault(model)
        return result

    def describe(self) -> list[dict[str, Any]]:
        """Return the rules as JSON, most specific first, credentials masked."""
        return [
            {
                "kind": rule.kind,
                "model": rule.model,
                "credential": rule.credential,
                **{name: getattr(rule, name) for name in _PACE},
                "faults": [_describe_fault(fault) for fault in rule.faults],
            }
            for rule in self._rules
        ]


def parse_rule(spec: Any) -> Rule:
    """Return the rule, or raise ScriptError naming what is wrong with it."""
    if not isinstance(spec, dict):
        raise ScriptError("a rule is a JSON object")
    _refuse_unknown(spec, Rule.__slots__, "rule")
    rule = Rule()
    for name in ("kind", "model", "credential"):
        value = spec.get(name)
        if value is not None and not isinstance(value, str):
            raise ScriptError(f"{name} must be text")
        setattr(rule, name, value)
    if rule.credential is not None and not rule.credential.startswith("..."):
        rule.credential = mask(rule.credential)
    for name in _PACE:
        setattr(rule, name, _number(spec, name, whole=name.endswith("tokens")))
    faults = spec.get("faults") or []
    if not isinstance(faults, list):
        raise ScriptError("faults must be a list")
    rule.faults = [_parse_fault(fault) for fault in faults]
    return rule


def _parse_fault(spec: Any) -> Fault:
    if not isinstance(spec, dict) or spec.get("type") not in FAULTS:
        raise ScriptError(f"a fault needs a type out of {', '.join(FAULTS)}")
    _refuse_unknown(spec, Fault.__slots__, "fault")
    fault = Fault(type=spec["type"])
    for name in ("status", "after_chunks", "first", "every"):
        value = _number(spec, name, whole=True)
        if value is not None:
            setattr(fault, name, int(value))
    for name in ("retry_after_s", "hang_s", "first_token_ms", "probability"):
        value = _number(spec, name)
        if value is not None:
            setattr(fault, name, value)
    fault.message = spec.get("message")
    fault.headers = dict(spec.get("headers") or {})
    if fault.type == "status" and fault.status is None:
        raise ScriptError("a fault of type status needs a status")
    if fault.status is not None and not 400 <= fault.status <= 599:
        raise ScriptError("status must be between 400 and 599")
    if fault.every == 0:
        raise ScriptError("every must be at least 1")
    return fault


def _number(spec: dict[str, Any], name: str, *, whole: bool = False) -> float | None:
    value = spec.get(name)
    if value is None:
        return None
    kinds = (int,) if whole else (int, float)
    if type(value) not in kinds or value < 0:
        raise ScriptError(f"{name} must be a {'whole ' if whole else ''}number of at least 0")
    return value  # type: ignore[no-any-return]


def _refuse_unknown(spec: dict[str, Any], known: Any, what: str) -> None:
    unknown = sorted(set(spec) - set(known) - {"calls"})
    if unknown:
        raise ScriptError(f"unknown field of a {what}: {', '.join(unknown)}")


def _magic_fault(model: str) -> Fault | None:
    found = _MAGIC.search(model)
    if found is None:
        return None
    if found[2]:
        return Fault("status", status=int(found[2]))
    name = found[1].replace("-", "_")
    return Fault(name) if name in FAULTS else None


def _describe_fault(fault: Fault) -> dict[str, Any]:
    return {name: getattr(fault, name) for name in Fault.__slots__}
