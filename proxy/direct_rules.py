"""What LiteLLM does with the parameters of a request: kept, left out, renamed. Pure.

The rules are LiteLLM's own answers, asked once per deployment (litellm_facts.py); here they
are data, so that a request is judged by a few set operations.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proxy.direct_chat import ChatRules
from proxy.direct_responses import ResponsesRules
from proxy.routes import Kind

MOST_STOPS = 4  # LiteLLM cuts longer lists


@dataclass(frozen=True, slots=True)
class ParamRules:
    """The parameters of one route of one deployment.

    A name that is in none of the sets is the provider's own and passes, as long as LiteLLM
    does not know it and the rules are not closed.
    """

    kept: frozenset[str]  # whatever their value
    dropped: frozenset[str] = frozenset()
    renamed: Mapping[str, str] = field(default_factory=dict)
    ones: frozenset[str] = frozenset()  # kept with the value 1, else dropped
    # Values that are kept, and values that are dropped; with any other, only LiteLLM knows.
    choices: Mapping[str, tuple[frozenset[Any], frozenset[Any]]] = field(default_factory=dict)
    entangled: frozenset[str] = frozenset()  # what becomes of them depends on the effort
    effort: str = "reasoning_effort"  # the parameter that names it
    known: frozenset[str] = frozenset()  # names that mean something to LiteLLM
    closed: bool = False  # there are no other names


@dataclass(frozen=True, slots=True)
class LiteLlmFacts:
    """What LiteLLM knows of a deployment that decides what it sends."""

    provider: str  # LiteLLM's name of the API that is spoken
    model: str  # as it is sent
    params: Mapping[Kind, ParamRules]  # of the routes that are not translated
    chat: ChatRules = field(default_factory=ChatRules)
    responses: ResponsesRules = field(default_factory=ResponsesRules)
    environment: str = ""  # a variable of the environment that LiteLLM would take into account


def apply_params(rules: ParamRules, body: dict[str, Any]) -> dict[str, Any] | str:
    """The parameters as LiteLLM sends them, or the reason why only it can tell.

    The same object when nothing changes.
    """
    if rules.entangled and rules.effort in body and not rules.entangled.isdisjoint(body):
        return reason(rules.effort)
    if not (body.keys() <= rules.kept) or None in body.values():
        changed = _rewritten(rules, body)
        if isinstance(changed, str):
            return changed
        body = changed
    stop = body.get("stop")
    if stop.__class__ is list and len(stop) > MOST_STOPS:
        return {**body, "stop": stop[:MOST_STOPS]}
    return body


def _rewritten(rules: ParamRules, body: dict[str, Any]) -> dict[str, Any] | str:
    new: dict[str, Any] = {}
    for name, value in body.items():
        if value is None or name in rules.dropped:
            continue
        if name in rules.kept:
            new[name] = value
        elif name in rules.renamed:
            if rules.renamed[name] in body:
                return reason(name)
            new[rules.renamed[name]] = value
        elif name in rules.ones:
            if not isinstance(value, int | float):
                return reason(name)
            if value == 1:
                new[name] = value
        elif name in rules.choices:
            stays = _is_kept(name, value, *rules.choices[name])
            if stays is None:
                return reason(name)
            if stays:
                new[name] = value
        elif rules.closed or name in rules.known:
            return reason(name)
        else:
            new[name] = value
    return new


def _is_kept(name: str, value: Any, kept: frozenset[Any], dropped: frozenset[Any]) -> bool | None:
    """Whether a value stays; None: unknown. `reasoning` is judged by its effort."""
    effort = value
    if name == "reasoning" and isinstance(value, dict):
        effort = value.get("effort")
    if not isinstance(effort, str | int | float):
        return None
    if effort in kept:
        return True
    return False if effort in dropped and (effort is value or len(value) == 1) else None


def reason(name: str) -> str:
    """Why a request stays on LiteLLM's lane: what it would do with a parameter."""
    return f"parameter:{name}"[:100]
