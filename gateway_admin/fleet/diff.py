"""What changed between two revision documents, in words. Pure.

Used by the publish page, the history and the API. Things are matched by what names them
for good: deployments and credentials by id (so a rename is a change, not a removal),
models, aliases and chains by name.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from proxy.contract import (
    BreakerDocument,
    CacheDocument,
    CredentialDocument,
    PriceDocument,
    RevisionDocument,
)

Action = Literal["added", "removed", "changed"]
Thing = Literal["environment", "model", "alias", "credential", "deployment", "chain"]

# The order in which a page tells it: what clients see first.
THINGS: tuple[Thing, ...] = (
    "environment",
    "model",
    "alias",
    "chain",
    "deployment",
    "credential",
)

NOTHING = "none"
SAME_VALUES = "entered again with the same values"
MILLION = Decimal(1_000_000)
LANE_WORDS = {"auto": "direct when possible", "litellm": "always through LiteLLM"}
OUTAGE_WORDS = {"share": "serve each worker's share", "refuse": "refuse"}


@dataclass(frozen=True)
class Change:
    """One difference. `before` and `after` are words for people; None where there is no value."""

    action: Action
    thing: Thing
    id: str  # deployment's or credential's id, else the name
    name: str
    field: str  # "" when the whole thing was added or removed
    before: str | None
    after: str | None

    @property
    def text(self) -> str:
        """One line: `gpt-4o: price per 1M input tokens $2.50 → $2.00`."""
        if self.action == "added":
            return f"{self.name}: {self.thing} added" + (f" ({self.after})" if self.after else "")
        if self.action == "removed":
            return f"{self.name}: {self.thing} removed"
        if self.before is None and self.after is None:
            return f"{self.name}: {self.field}"
        return f"{self.name}: {self.field} {self.before or NOTHING} → {self.after or NOTHING}"


Fields = dict[str, str | None]
Names = Mapping[str, str]  # credential's id -> what to call it


@dataclass(frozen=True)
class _Part:
    """How one list of a document is matched, named and put into words."""

    thing: Thing
    rows: Callable[[RevisionDocument], Mapping[str, Any]]
    name: Callable[[Any], str]
    fields: Callable[[Any, "Names"], Fields]
    summary: Callable[[Any], str]


def diff_documents(before: RevisionDocument | None, after: RevisionDocument) -> list[Change]:
    """All differences, grouped by thing in the order of THINGS, each group by name.

    `before` is None for an environment that never published: everything is new.
    """
    names = _credential_names(before, after)
    changes = _environment_changes(before, after)
    for part in _PARTS:
        old = part.rows(before) if before is not None else {}
        changes += _part_changes(part, old, part.rows(after), names)
    return sorted(changes, key=lambda change: THINGS.index(change.thing))


def _environment_changes(before: RevisionDocument | None, after: RevisionDocument) -> list[Change]:
    if before is None:
        return []
    old, new = (_environment_fields(document) for document in (before, after))
    slug, name = after["environment"]["slug"], after["environment"]["name"]
    return list(_field_changes("environment", slug, name, old, new))


def _part_changes(
    part: _Part, old: Mapping[str, Any], new: Mapping[str, Any], names: Names
) -> list[Change]:
    changes: list[Change] = []
    for key in old.keys() | new.keys():
        if key not in old:
            row = new[key]
            changes.append(
                Change("added", part.thing, key, part.name(row), "", None, part.summary(row))
            )
        elif key not in new:
            row = old[key]
            changes.append(
                Change("removed", part.thing, key, part.name(row), "", part.summary(row), None)
            )
        elif old[key] != new[key]:
            changes += _row_changes(part, key, old[key], new[key], names)
    return sorted(changes, key=lambda change: (change.name.casefold(), change.id))


def _row_changes(part: _Part, key: str, old: Any, new: Any, names: Names) -> list[Change]:
    """At least one change: a digest never differs without a line that says so."""
    name = part.name(new)
    fields = part.fields(old, names), part.fields(new, names)
    changes = list(_field_changes(part.thing, key, name, *fields))
    if part.thing == "credential":
        changes += _secret_changes(old, new)
    return changes or [Change("changed", part.thing, key, name, SAME_VALUES, None, None)]


def _field_changes(thing: Thing, key: str, name: str, old: Fields, new: Fields) -> Iterable[Change]:
    for field in dict.fromkeys([*new, *old]):
        before, after = old.get(field), new.get(field)
        if before != after:
            yield Change("changed", thing, key, name, field, before, after)


def _secret_changes(old: CredentialDocument, new: CredentialDocument) -> Iterable[Change]:
    """A secret has nothing to show but that another version of it is used."""
    if old["secret_id"] == new["secret_id"]:
        return
    field = "secret replaced"
    if new["secret_id"] is None:
        field = "secret removed"
    elif old["secret_id"] is None:
        field = "secret set"
    yield Change("changed", "credential", new["id"], new["name"], field, None, None)


def _credential_names(before: RevisionDocument | None, after: RevisionDocument) -> Names:
    """Today's names, so that a renamed credential is one change and not one per deployment."""
    documents = [before, after] if before is not None else [after]
    names = {row["id"]: row["name"] for document in documents for row in document["credentials"]}
    shared = {name for name, uses in Counter(names.values()).items() if uses > 1}
    return {key: f"{name} ({key[:8]})" if name in shared else name for key, name in names.items()}


def _environment_fields(document: RevisionDocument) -> Fields:
    environment = document["environment"]
    return {
        "name": environment["name"],
        "default model": environment["default_model"],
        "fallback chains": "on" if environment["fallback_enabled"] else "off",
        "time-out": _seconds(environment["timeout_s"]),
        "time-out until the first byte": _seconds(environment["stream_timeout_s"]),
        "time-out of all attempts": _seconds(environment.get("total_timeout_s")),
        "retries on the same model": str(environment["num_retries"]),
        "wait before the first retry": _seconds(environment.get("retry_backoff_s")),
        "longest answer where none is asked for": _tokens(environment.get("default_output_tokens")),
        "when limits cannot be counted together": OUTAGE_WORDS.get(
            environment.get("on_counter_outage", "")
        ),
        **_breaker_fields(environment.get("breaker")),
        **_cache_fields(environment.get("cache")),
    }


def _breaker_fields(breaker: BreakerDocument | None) -> Fields:
    """Nothing for a document of an earlier version, which did not speak of breakers."""
    if breaker is None:
        return {}
    return {
        "circuit breakers": "on" if breaker["enabled"] else "off",
        "breaker opens after failures in a row": _count(breaker["consecutive_failures"]),
        "breaker opens at failures": f"{breaker['failure_percent']}%",
        "breaker opens at failures of at least": f"{breaker['minimum_calls']:,} calls",
        "breaker looks back": _seconds(breaker["window_s"]),
        "breaker stays open": _seconds(breaker["open_s"]),
        "trial calls at once": _count(breaker["half_open_permits"]),
        "successes that close a breaker": _count(breaker["close_after_successes"]),
        "slow call": _seconds(breaker["slow_call_s"]),
        "when every breaker is open": "refuse" if breaker["all_open"] == "refuse" else "try one",
    }


def _cache_fields(cache: CacheDocument | None) -> Fields:
    if cache is None:
        return {}
    return {
        "response cache": "on" if cache["enabled"] else "off",
        "answers are kept for": _seconds(cache["ttl_s"]),
        "longest answer kept": f"{cache['max_entry_bytes']:,} bytes",
    }


def _model_fields(model: Any, names: Names) -> Fields:
    return {
        "mode": model["mode"].replace("_", " "),
        "context window": _tokens(model["context_window"]),
        "longest answer": _tokens(model["max_output_tokens"]),
        "answers may be kept": _plain(model.get("cache", True)),
        "lane": LANE_WORDS.get(model.get("lane", "auto")),
    }


def _credential_fields(credential: Any, names: Names) -> Fields:
    return {
        "name": credential["name"],
        "provider": credential["provider"],
        **_param_fields(credential["params"]),
    }


def _deployment_fields(deployment: Any, names: Names) -> Fields:
    return {
        "name": deployment["name"],
        "model": deployment["model"],
        "provider": deployment["provider"],
        "provider's model": deployment["upstream_model"],
        "LiteLLM model": deployment["litellm_model"],
        "credential": names.get(deployment["credential"] or ""),
        "requests per minute": _count(deployment["rpm"]),
        "tokens per minute": _count(deployment["tpm"]),
        "weight": str(deployment["weight"]),
        "time-out": _seconds(deployment["timeout_s"]),
        "time-out until the first byte": _seconds(deployment["stream_timeout_s"]),
        "region": deployment["region"] or None,
        "lane": LANE_WORDS.get(deployment.get("lane", "auto")),
        **_param_fields(deployment["params"]),
        **_price_fields(deployment["price"]),
    }


def _param_fields(params: Mapping[str, Any]) -> Fields:
    return {name: _plain(value) for name, value in sorted(params.items())}


def _price_fields(price: PriceDocument | None) -> Fields:
    if price is None or not price["units"]:
        return {"price": "unpriced"}
    amounts = {
        f"price per {_unit_words(unit)}": money_per_unit(unit, amount)
        for unit, amount in sorted(price["units"].items())
    }
    return {**amounts, "price from": "the price book" if price["source"] == "book" else "own price"}


def money_per_unit(unit: str, amount: str) -> str:
    """`$2.50`: per million for tokens and characters, else per one."""
    value = Decimal(amount) * (MILLION if _is_small(unit) else 1)
    digits = max(2, -int(value.normalize().as_tuple().exponent)) if value else 2
    return f"${value:,.{min(digits, 12)}f}"


def _is_small(unit: str) -> bool:
    return unit.endswith(("_token", "_character"))


def _unit_words(unit: str) -> str:
    words = unit.replace("_", " ")
    return f"1M {words}s" if _is_small(unit) else words


def _deployment_summary(deployment: Any) -> str:
    price = deployment["price"]
    amounts = "unpriced"
    if price and "input_token" in price["units"]:
        units = price["units"]
        amounts = f"{money_per_unit('input_token', units['input_token'])} in"
        if "output_token" in units:
            amounts += (
                f" / {money_per_unit('output_token', units['output_token'])} out per 1M tokens"
            )
    elif price and price["units"]:
        unit, amount = min(price["units"].items())
        amounts = f"{money_per_unit(unit, amount)} per {_unit_words(unit)}"
    return f"serves {deployment['model']} with {deployment['litellm_model']}, {amounts}"


def _model_summary(model: Any) -> str:
    window = _tokens(model["context_window"])
    mode = str(model["mode"]).replace("_", " ")
    return f"{mode}, {window} context" if window else mode


def _chain_words(targets: Sequence[str]) -> str:
    return ", ".join(targets)


def _chain_name(chain: Any) -> str:
    kind = "" if chain["kind"] == "general" else f" ({chain['kind'].replace('_', ' ')})"
    return f"{chain['model']}{kind}"


def _count(value: int | None) -> str | None:
    return None if value is None else f"{value:,}"


def _tokens(value: int | None) -> str | None:
    return None if value is None else f"{value:,} tokens"


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:g} s"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_plain(inner)}" for key, inner in sorted(value.items()))
    if isinstance(value, list):
        return ", ".join(_plain(inner) for inner in value)
    return str(value)


_PARTS = (
    _Part(
        "model",
        lambda document: {row["name"]: row for row in document["models"]},
        lambda row: str(row["name"]),
        _model_fields,
        _model_summary,
    ),
    _Part(
        "alias",
        lambda document: {name: (name, target) for name, target in document["aliases"].items()},
        lambda row: str(row[0]),
        lambda row, names: {"points to": row[1]},
        lambda row: f"points to {row[1]}",
    ),
    _Part(
        "chain",
        lambda document: {f"{row['model']} {row['kind']}": row for row in document["chains"]},
        _chain_name,
        lambda row, names: {"order": _chain_words(row["targets"])},
        lambda row: _chain_words(row["targets"]),
    ),
    _Part(
        "deployment",
        lambda document: {row["id"]: row for row in document["deployments"]},
        lambda row: str(row["name"]),
        _deployment_fields,
        _deployment_summary,
    ),
    _Part(
        "credential",
        lambda document: {row["id"]: row for row in document["credentials"]},
        lambda row: str(row["name"]),
        _credential_fields,
        lambda row: str(row["provider"]),
    ),
)
