"""Input and tools of a Responses request as LiteLLM sends them. Pure.

Function tools and plain conversations pass; for what LiteLLM rewrites or keeps track of
(other tools, items that models made of their reasoning) the reason is given instead.
"""

from dataclasses import dataclass
from typing import Any

import orjson

from proxy.direct_chat import COMBINATORS, regexes_pass

LEAST_OUTPUT_TOKENS = 16  # LiteLLM raises smaller limits
_ROLES = frozenset({"system", "developer", "user", "assistant"})
_PARTS = frozenset({"input_text", "output_text", "input_image", "input_file", "refusal"})
_TOOL_KEYS = frozenset({"type", "name", "description", "parameters", "strict"})


@dataclass(frozen=True, slots=True)
class ResponsesRules:
    """What passes of the tools of one deployment without being rewritten."""

    combinators: bool = False  # `anyOf` and the like at the top of a tool's parameters
    any_regex: bool = False  # in a tool's parameters


def unwritten(rules: ResponsesRules, body: dict[str, Any]) -> str:
    """The parameter that only LiteLLM can write; "" when the body passes as it is."""
    given = body.get("input")
    if not isinstance(given, str) and not _input_passes(given):
        return "input"
    limit = body.get("max_output_tokens")
    if limit is not None and (not isinstance(limit, int) or limit < LEAST_OUTPUT_TOKENS):
        return "max_output_tokens"
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        return "stream"
    tools = body.get("tools")
    if tools and not _tools_pass(rules, tools):
        return "tools"
    metadata = body.get("metadata")
    return "metadata" if metadata is not None and not isinstance(metadata, dict) else ""


def _input_passes(items: Any) -> bool:
    return isinstance(items, list) and all(
        isinstance(item, dict) and None not in item.values() and _item_passes(item)
        for item in items
    )


def _item_passes(item: dict[str, Any]) -> bool:
    kind = item.get("type", "message")
    if kind == "message":
        content = item.get("content")
        passes: bool = isinstance(content, str) or (
            isinstance(content, list) and all(_part_passes(part) for part in content)
        )
        return passes and item.get("role") in _ROLES
    if kind == "function_call":
        return str(item.get("id", "fc_")).startswith("fc_")  # others LiteLLM renames
    return bool(kind == "function_call_output")


def _part_passes(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in _PARTS and None not in part.values()


def _tools_pass(rules: ResponsesRules, tools: Any) -> bool:
    if not isinstance(tools, list) or not all(_tool_passes(rules, tool) for tool in tools):
        return False
    if rules.any_regex or b'"pattern' not in orjson.dumps(tools):
        return True
    return regexes_pass(tools)


def _tool_passes(rules: ResponsesRules, tool: Any) -> bool:
    if not isinstance(tool, dict) or tool.get("type") != "function":
        return False
    parameters = tool.get("parameters")
    if not tool.keys() <= _TOOL_KEYS:
        return False
    return parameters is None or (
        isinstance(parameters, dict) and (rules.combinators or COMBINATORS.isdisjoint(parameters))
    )
