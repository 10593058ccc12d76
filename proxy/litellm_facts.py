"""Asks LiteLLM, once per deployment, what decides how it writes requests to its provider.

Every parameter is handed to LiteLLM's own translation with a few values; what comes back
tells whether it keeps, drops or renames it. Imports LiteLLM: only backend.py does it.
"""

import copy
import dataclasses
import inspect
import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, get_type_hints
from urllib.parse import urlsplit

import litellm
from litellm.litellm_core_utils.get_llm_provider_logic import get_llm_provider
from litellm.main import responses_api_bridge_check
from litellm.types.llms.openai import ResponsesAPIOptionalRequestParams
from litellm.types.router import GenericLiteLLMParams
from litellm.types.utils import LlmProviders, all_litellm_params
from litellm.utils import (
    ProviderConfigManager,
    get_non_default_completion_params,
    get_optional_params,
    get_optional_params_embeddings,
)

from proxy.direct_chat import ROLES, ChatRules
from proxy.direct_responses import ResponsesRules
from proxy.direct_rules import LiteLlmFacts, ParamRules
from proxy.routes import Kind
from proxy.snapshot import Deployment

PROVIDERS = frozenset({"openai", "azure", "hosted_vllm"})
_OPENAI_HOST = "openai.com"
# Their presence changes LiteLLM's requests to the provider.
_VARIABLES = {
    "openai": (
        *("OPENAI_BASE_URL", "OPENAI_API_BASE", "OPENAI_ORGANIZATION", "OPENAI_ORG_ID"),
        *("OPENAI_PROJECT_ID", "OPENAI_CUSTOM_HEADERS", "OPENAI_ADMIN_KEY"),
    ),
    "azure": ("AZURE_API_VERSION", "AZURE_OPENAI_AD_TOKEN", "AZURE_AD_TOKEN"),
    "hosted_vllm": ("HOSTED_VLLM_API_BASE", "HOSTED_VLLM_API_KEY", "OPENAI_CUSTOM_HEADERS"),
}
_FUNCTION: dict[str, Any] = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object"}},
}
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max", "default")
_MESSAGES: list[dict[str, Any]] = [{"role": "user", "content": "x"}]
_PARTS = [{"type": "text", "text": "x"}]
_FILE = {"type": "file", "file": {"filename": "x.mp4", "file_data": "data:video/mp4;base64,AAAA"}}

# Values to ask with: several where what LiteLLM does depends on the value.
_CHAT: dict[str, tuple[Any, ...]] = {
    "audio": ({"voice": "alloy", "format": "wav"},),
    "context_management": ({"edits": []},),
    "frequency_penalty": (0, 0.5),
    "function_call": ("auto", {"name": "f"}),
    "functions": ([{"name": "f", "parameters": {}}],),
    "include_server_side_tool_invocations": (True,),
    "logit_bias": ({"50256": -100},),
    "logprobs": (True, False),
    "max_completion_tokens": (1, 100),
    "max_tokens": (1, 100),
    "metadata": ({"a": "b"},),
    "modalities": (["text"], ["text", "audio"]),
    "n": (1, 2),
    "parallel_tool_calls": (True, False),
    "prediction": ({"type": "content", "content": "x"},),
    "presence_penalty": (0, 0.5),
    "prompt_cache_key": ("k",),
    "prompt_cache_retention": ("24h",),
    "reasoning_effort": _EFFORTS,
    "response_format": (
        {"type": "text"},
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
    ),
    "safety_identifier": ("s",),
    "seed": (0, 1),
    "service_tier": ("auto", "flex"),
    "stop": ("x", ["x", "y"]),
    "store": (True, False),
    "stream": (True,),
    "stream_options": ({"include_usage": True},),
    "temperature": (0, 0.5, 1, 1.5),
    "thinking": ({"type": "enabled", "budget_tokens": 1024},),
    "tool_choice": ("auto", "none", "required", {"type": "function", "function": {"name": "f"}}),
    "tools": ([_FUNCTION],),
    "top_logprobs": (0, 2),
    "top_p": (0.5, 1),
    "user": ("u",),
    "verbosity": ("low",),
    "web_search_options": ({}, {"search_context_size": "low"}),
}
_RESPONSES: dict[str, tuple[Any, ...]] = {
    "background": (False,),
    "include": (["reasoning.encrypted_content"],),
    "instructions": ("x",),
    "max_output_tokens": (16, 100),
    "max_tool_calls": (3,),
    "metadata": ({"a": "b"},),
    "parallel_tool_calls": (True, False),
    "previous_response_id": ("resp_x",),
    "prompt_cache_key": ("k",),
    "reasoning": tuple({"effort": effort} for effort in _EFFORTS),
    "safety_identifier": ("s",),
    "service_tier": ("auto", "flex"),
    "store": (True, False),
    "stream": (True,),
    "temperature": (0, 0.5, 1, 1.5),
    "text": ({"format": {"type": "text"}}, {"verbosity": "low"}),
    "tool_choice": ("auto", "none", "required", {"type": "function", "name": "f"}),
    "tools": ([{"type": "function", "name": "f", "parameters": {"type": "object"}}],),
    "top_logprobs": (0, 2),
    "top_p": (0.5, 1),
    "truncation": ("auto", "disabled"),
    "user": ("u",),
}
_SAMPLING = ("logprobs", "temperature", "top_logprobs", "top_p")
_TEXT = frozenset(
    {"best_of", "echo", "frequency_penalty", "logit_bias", "logprobs", "max_tokens", "n"}
    | {"presence_penalty", "seed", "stop", "stream", "stream_options", "suffix", "temperature"}
    | {"top_p", "user"}
)
_TEXT_VALUES: dict[str, tuple[Any, ...]] = {
    "best_of": (2,),
    "echo": (True, False),
    "logprobs": (0, 2),
    "suffix": ("s",),
}
_EMBEDDING: dict[str, tuple[Any, ...]] = {
    "dimensions": (256,),
    "encoding_format": ("float", "base64"),
    "user": ("u",),
}
# Chat parameters that LiteLLM reads from wherever they are.
_ALIASES = frozenset({"reasoning_summary", "reasoningSummary"})
_SIGNATURE = frozenset(inspect.signature(litellm.completion).parameters)
_OWN = frozenset(all_litellm_params) | _ALIASES
_CHAT_KNOWN = frozenset({*_CHAT, *_SIGNATURE, *_OWN, *litellm.OPENAI_CHAT_COMPLETION_PARAMS})
_RESPONSES_KNOWN = frozenset(get_type_hints(ResponsesAPIOptionalRequestParams))
# What LiteLLM does with one of these can depend on another: asked for one by one.
_EFFORT = ("reasoning", "reasoning_effort")
_ALONE = frozenset({"max_completion_tokens", "max_tokens", "thinking", *_EFFORT})

Body = dict[str, Any]
Ask = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]


def facts_of(deployment: Deployment) -> LiteLlmFacts | str:
    """What LiteLLM knows of a deployment; the reason when it alone can serve it."""
    params = deployment.params
    name, base = str(params["model"]), params.get("api_base")
    provider = name.partition("/")[0]
    if provider not in PROVIDERS or (base is not None and not isinstance(base, str)):
        return "provider"
    try:
        model, spoken, _, _ = get_llm_provider(model=name, api_base=base or None)
    except Exception:  # noqa: BLE001  # LiteLLM raises many kinds
        return "provider"
    if spoken != provider or (provider == "azure" and "/" in model):
        return "provider"
    version = str(params.get("api_version") or "") if provider == "azure" else ""
    # Beside OpenAI's own, it makes no difference which host it is.
    itself = provider == "openai" and _is_openai_host(base or "")
    host = "" if itself else "http://other.invalid"
    return _facts(provider, model, host, version, _mode(model, provider, host))


@lru_cache(maxsize=4096)
def _facts(provider: str, model: str, base: str, version: str, mode: str | None) -> LiteLlmFacts:
    """The answers for a model; its mode can be changed by what LiteLLM is told of it later."""
    config = ProviderConfigManager.get_provider_chat_config(model, LlmProviders(provider))
    found = next((v for v in _VARIABLES[provider] if os.environ.get(v)), "")
    return LiteLlmFacts(
        provider=provider,
        model=model,
        params=_params(provider, model, version, elsewhere=mode == "responses"),
        chat=_chat_text_rules(config, provider, model, base, version),
        responses=_responses_text_rules(provider, model, base),
        environment=found,
    )


# --- parameters --------------------------------------------------------------------------------


def _params(provider: str, model: str, version: str, *, elsewhere: bool) -> dict[Kind, ParamRules]:
    """The rules of the routes that LiteLLM does not translate into another."""
    found: dict[Kind, ParamRules] = {}
    chat_elsewhere = (
        model.startswith("responses/")
        or "ft:babbage-002" in model
        or "ft:davinci-002" in model
        or elsewhere
    )
    if not chat_elsewhere:
        found["chat"] = _chat_rules(provider, model, version)
    if provider == "hosted_vllm" or (
        provider == "openai" and model not in litellm.open_ai_chat_completion_models
    ):
        found["completion"] = _text_rules(provider, model)
    found["embedding"] = _embedding_rules(provider, model)
    responses = _responses_rules(provider, model)
    if responses is not None:
        found["responses"] = responses
    return found


def _chat_rules(provider: str, model: str, version: str) -> ParamRules:
    def ask(asked: Mapping[str, Any]) -> Mapping[str, Any] | None:
        return _sent(provider, model, version, asked)

    rules = _judged(_CHAT, ask, always={"messages", "model"}, known=_CHAT_KNOWN)
    efforts: list[Body] = [{"reasoning_effort": effort} for effort in ("none", "low")]
    entangled = _are_entangled(ask, efforts, _SAMPLING)
    return _replaced(rules, entangled=frozenset(_SAMPLING)) if entangled else rules


def _are_entangled(ask: Ask, efforts: list[Body], names: tuple[str, ...]) -> bool:
    """Whether LiteLLM judges the parameters of sampling by the effort of reasoning."""
    for effort in efforts:
        alone = ask(effort)
        for values in zip(*(_CHAT[name][:2] for name in names), strict=True):
            sampling = dict(zip(names, values, strict=True))
            apart = {**(ask(sampling) or {}), **(alone or {})}
            if ask({**sampling, **effort}) != apart:
                return True
    return False


def _text_rules(provider: str, model: str) -> ParamRules:
    spoken = provider if provider == "hosted_vllm" else "text-completion-openai"

    def ask(asked: Mapping[str, Any]) -> Mapping[str, Any] | None:
        return _sent(spoken, model, "", asked)

    values = {name: _TEXT_VALUES.get(name) or _CHAT[name] for name in _TEXT}
    values["metadata"] = _CHAT["metadata"]
    return _judged(values, ask, always={"model", "prompt"}, known=_CHAT_KNOWN)


def _embedding_rules(provider: str, model: str) -> ParamRules:
    def ask(asked: Mapping[str, Any]) -> Mapping[str, Any] | None:
        try:
            sent = get_optional_params_embeddings(
                model=model, custom_llm_provider=provider, drop_params=True, **asked
            )
        except Exception:  # noqa: BLE001  # LiteLLM raises many kinds
            return None
        return _flat(sent)

    rules = _judged(_EMBEDDING, ask, always={"input", "model"}, known=_OWN)
    return _replaced(rules, dropped=rules.dropped | {"metadata"})


def _responses_rules(provider: str, model: str) -> ParamRules | None:
    config = _responses_config(provider, model)
    if config is None:
        return None

    def ask(asked: Mapping[str, Any]) -> Mapping[str, Any] | None:
        # Only these names get that far; the rest of LiteLLM's way there is slow.
        named = {name: value for name, value in asked.items() if name in _RESPONSES_KNOWN}
        try:
            return dict(
                config.map_openai_params(
                    response_api_optional_params=copy.deepcopy(named),
                    model=model,
                    drop_params=True,
                )
            )
        except Exception:  # noqa: BLE001  # LiteLLM raises many kinds
            return None

    rules = _judged(_RESPONSES, ask, always={"input", "model"}, known=frozenset())
    efforts: list[Body] = [{"reasoning": {"effort": effort}} for effort in ("none", "low")]
    names = ("temperature", "top_p")
    entangled = frozenset(names) if _are_entangled(ask, efforts, names) else frozenset()
    return _replaced(rules, closed=True, effort="reasoning", entangled=entangled)


def _responses_config(provider: str, model: str) -> Any:
    return ProviderConfigManager.get_provider_responses_api_config(
        provider=LlmProviders(provider), model=model
    )


def _judged(
    values: Mapping[str, tuple[Any, ...]], ask: Ask, *, always: set[str], known: frozenset[str]
) -> ParamRules:
    """Ask for each parameter, and tell what becomes of it."""
    kept, dropped, ones = set(always), set(), set()
    renamed: dict[str, str] = {}
    choices: dict[str, tuple[frozenset[Any], frozenset[Any]]] = {}
    for name, answers in _answers(values, ask).items():
        stays = [value for value, sent in answers if sent == {name: value}]
        leaves = [value for value, sent in answers if sent == {}]
        other = {key for _, sent in answers for key in (sent or {})} - {name}
        if len(leaves) == len(answers) and name != "reasoning":
            dropped.add(name)
        elif len(stays) == len(answers) and name not in _EFFORT:
            kept.add(name)
        elif len(other) == 1 and all(sent == {min(other): value} for value, sent in answers):
            renamed[name] = min(other)
        elif name == "temperature" and stays == [1] and len(leaves) == len(answers) - 1:
            ones.add(name)
        else:
            choices[name] = (_scalars(stays), _scalars(leaves))
    return ParamRules(
        kept=frozenset(kept),
        dropped=frozenset(dropped),
        renamed=renamed,
        ones=frozenset(ones),
        choices=choices,
        known=known,
    )


def _answers(
    values: Mapping[str, tuple[Any, ...]], ask: Ask
) -> dict[str, list[tuple[Any, Mapping[str, Any] | None]]]:
    """Each value of each parameter with what is sent of it.

    Asked together where that is unambiguous: LiteLLM takes 0.2 ms for an answer.
    """
    found: dict[str, list[tuple[Any, Mapping[str, Any] | None]]] = {name: [] for name in values}
    for turn in range(max(len(tries) for tries in values.values())):
        asked = {name: tries[turn] for name, tries in values.items() if turn < len(tries)}
        together = {name: value for name, value in asked.items() if name not in _ALONE}
        sent = ask(together) if together else {}
        ambiguous = sent is None or any(
            name not in together or value != together[name] for name, value in sent.items()
        )
        for name, value in asked.items():
            if ambiguous or name in _ALONE:
                found[name].append((value, ask({name: value})))
            else:
                assert sent is not None
                found[name].append((value, {name: value} if name in sent else {}))
    return found


def _scalars(values: list[Any]) -> frozenset[Any]:
    found = [value.get("effort") if isinstance(value, dict) else value for value in values]
    return frozenset(value for value in found if isinstance(value, str | int | float))


def _replaced(rules: ParamRules, **changes: Any) -> ParamRules:
    return dataclasses.replace(rules, **changes)


def _sent(
    provider: str, model: str, version: str, asked: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    """What LiteLLM would send of some parameters; None: it refuses them."""
    named = {name: value for name, value in asked.items() if name in _SIGNATURE}
    others = {name: value for name, value in asked.items() if name not in _SIGNATURE}
    try:
        sent = get_optional_params(
            model=model,
            custom_llm_provider=provider,
            messages=copy.deepcopy(_MESSAGES),
            api_version=version or None,
            drop_params=True,
            **copy.deepcopy(named),
            **get_non_default_completion_params(others),
        )
    except Exception:  # noqa: BLE001  # LiteLLM raises many kinds
        return None
    return _flat(sent)


def _flat(sent: Mapping[str, Any]) -> dict[str, Any]:
    extra = sent.get("extra_body")
    body = {name: value for name, value in sent.items() if name != "extra_body"}
    if body.get("stream") is False:
        del body["stream"]  # its default
    return {**body, **(extra if isinstance(extra, dict) else {})}


# --- the rest ----------------------------------------------------------------------------------


def _mode(model: str, provider: str, base: str, **asked: Any) -> str | None:
    info, _ = responses_api_bridge_check(model, provider, api_base=base or None, **asked)
    mode = info.get("mode")
    return mode if isinstance(mode, str) else None


def _is_bridged(model: str, provider: str, base: str, effort: str | None) -> bool:
    """Whether LiteLLM sends a chat request with tools to the Responses API."""
    return _mode(model, provider, base, tools=[_FUNCTION], reasoning_effort=effort) == "responses"


def _chat_text_rules(config: Any, provider: str, model: str, base: str, version: str) -> ChatRules:
    """What LiteLLM leaves as it is in messages and tools, by asking it to write some."""
    asked = {"custom_llm_provider": provider, "api_base": base or None}

    def passes(messages: list[dict[str, Any]], tools: list[Any] | None = None) -> bool:
        given = {"tools": tools} if tools else {}
        try:
            written = config.transform_request(
                model=model,
                messages=copy.deepcopy(messages),
                optional_params=copy.deepcopy(given),
                litellm_params=asked,
                headers={},
            )
        except Exception:  # noqa: BLE001  # LiteLLM raises many kinds
            return False
        return bool(written["messages"] == messages and written.get("tools") == tools)

    def tool_passes(parameters: Mapping[str, Any], **more: Any) -> bool:
        function = {"name": "f", "parameters": {"type": "object", **parameters}}
        return passes(_MESSAGES, [{"type": "function", "function": function, **more}])

    mark = {"cache_control": {"type": "ephemeral"}}
    strict = {"type": "function", "function": {**_FUNCTION["function"], "strict": True}}
    bridged = any(_is_bridged(model, provider, base, e) for e in (None, "none", "low"))
    system_kept = passes([{"role": "system", "content": "x"}])
    developer = [{"role": "developer", "content": "x"}]
    told = config.translate_developer_role_to_system_role(messages=copy.deepcopy(developer))
    developer_kept = told == developer and passes(developer)
    roles = ROLES if system_kept else ROLES - {"system"}
    return ChatRules(
        roles=roles | {"developer"} if developer_kept else roles,
        developer_as_system=told == [{"role": "system", "content": "x"}] and system_kept,
        cache_control=passes([{**_MESSAGES[0], **mark}]) and tool_passes({}, **mark),
        assistant_parts=passes([{"role": "assistant", "content": _PARTS, "thinking_blocks": []}]),
        files=passes([{"role": "user", "content": [_FILE]}]),
        tools=not bridged,
        combinators=tool_passes({"anyOf": [{"type": "object"}]}),
        any_regex=tool_passes({"properties": {"a": {"type": "string", "pattern": r"\p{L}"}}}),
        strict_tools=_sent(provider, model, version, {"tools": [strict]}) == {"tools": [strict]},
    )


def _responses_text_rules(provider: str, model: str, base: str) -> ResponsesRules:
    """What LiteLLM leaves as it is in the tools of a Responses request."""
    config = _responses_config(provider, model)

    def tool_passes(parameters: Mapping[str, Any]) -> bool:
        given = {"type": "function", "name": "f", "parameters": {"type": "object", **parameters}}
        try:
            written = config.transform_responses_api_request(
                model=model,
                input="x",
                response_api_optional_request_params={"tools": [copy.deepcopy(given)]},
                litellm_params=GenericLiteLLMParams(api_base=base or None),
                headers={},
            )
        except Exception:  # noqa: BLE001  # LiteLLM raises many kinds
            return False
        return bool(written.get("tools") == [given])

    return ResponsesRules(
        combinators=tool_passes({"anyOf": [{"type": "object"}]}),
        any_regex=tool_passes({"properties": {"a": {"type": "string", "pattern": r"\p{L}"}}}),
    )


def _is_openai_host(base: str) -> bool:
    host = urlsplit(base).hostname if base else _OPENAI_HOST
    return host is None or host == _OPENAI_HOST or host.endswith(f".{_OPENAI_HOST}")
