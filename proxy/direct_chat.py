"""Messages and tools of a chat request as LiteLLM sends them. Pure.

Only what passes unchanged, or changes in a way that is simple, is handled; for everything
else the functions return the name of the parameter that only LiteLLM can write.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

_PLAIN_KEYS = frozenset({"role", "content", "name", "tool_call_id"})
ROLES = frozenset({"system", "user", "assistant", "tool", "function"})
_USER_PARTS = frozenset({"text", "input_audio", "audio_url", "video_url"})
_FUNCTION_KEYS = frozenset({"type", "function"})
COMBINATORS = frozenset({"oneOf", "anyOf", "allOf", "enum", "const", "not"})


@dataclass(frozen=True, slots=True)
class ChatRules:
    """What passes of the messages and tools of one deployment without being rewritten."""

    roles: frozenset[str] = ROLES  # that stay what they are
    developer_as_system: bool = False  # the role `developer` becomes `system`
    cache_control: bool = False  # marks of what Anthropic's models are to cache
    assistant_parts: bool = False  # answers in parts, and what other providers' models thought
    files: bool = False  # parts of a user's message that are files
    tools: bool = True  # at all, instead of going to another API
    combinators: bool = False  # `anyOf` and the like at the top of a tool's parameters
    any_regex: bool = False  # in a tool's parameters, also what Python's `re` does not know
    strict_tools: bool = False  # `strict` and `additionalProperties`


# --- messages ----------------------------------------------------------------------------------


def wire_messages(rules: ChatRules, messages: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """The messages as LiteLLM sends them, the same list if it changes none; None: unknown."""
    new: list[dict[str, Any]] | None = None
    for index, message in enumerate(messages):
        if (
            message.keys() <= _PLAIN_KEYS
            and message.get("content").__class__ is str
            and (role := message.get("role")).__class__ is str
            and role in rules.roles
            and None not in message.values()
        ):
            continue
        changed = _wire_message(rules, message)
        if changed is None:
            return None
        if changed is not message:
            new = new or list(messages)
            new[index] = changed
    return new or messages


def _wire_message(rules: ChatRules, message: dict[str, Any]) -> dict[str, Any] | None:
    if None in message.values():
        message = {name: value for name, value in message.items() if value is not None}
    role = message.get("role")
    if role == "developer" and rules.developer_as_system:
        message = {**message, "role": "system"}
    elif not isinstance(role, str) or role not in rules.roles:
        return None
    if not rules.cache_control and _mentions(message, "cache_control"):
        return None
    if role == "assistant" and not rules.assistant_parts and not _is_simple_answer(message):
        return None
    content = message.get("content")
    if isinstance(content, list):
        if role == "user" and not all(_part_passes(rules, part) for part in content):
            return None
        if role == "tool" and not all(_is_text(part) for part in content):
            return None
    return message


def _part_passes(rules: ChatRules, part: Any) -> bool:
    """Whether a part of a user's message passes as it is."""
    if not isinstance(part, dict):
        return False
    kind = part.get("type")
    if kind == "image_url":
        image = part.get("image_url")
        return isinstance(image, dict) and "format" not in image
    if kind == "file":
        file = part.get("file")
        return rules.files and isinstance(file, dict) and _file_passes(file)
    return isinstance(kind, str) and kind in _USER_PARTS


def _file_passes(file: dict[str, Any]) -> bool:
    named = "file_data" not in file or isinstance(file.get("filename"), str)
    ident = file.get("file_id", "file-")
    by_id = isinstance(ident, str) and not ident.startswith(("http", "www."))
    return named and by_id and "format" not in file


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text"


def _is_simple_answer(message: dict[str, Any]) -> bool:
    """An answer of a model that LiteLLM does not rewrite for vLLM."""
    if "thinking_blocks" in message or isinstance(message.get("content"), list):
        return False
    return isinstance(message.get("reasoning_content", ""), str)


def _mentions(value: Any, key: str) -> bool:
    """Whether a key occurs anywhere in a JSON value."""
    if isinstance(value, dict):
        return key in value or any(_mentions(item, key) for item in value.values())
    return isinstance(value, list) and any(_mentions(item, key) for item in value)


# --- tools -------------------------------------------------------------------------------------


def wire_tools(rules: ChatRules, body: dict[str, Any]) -> dict[str, Any] | str:
    """The body with its tools as LiteLLM sends them; the name of what only LiteLLM can write."""
    tools, choice = body.get("tools"), body.get("tool_choice")
    if choice is not None:
        if not tools and not body.get("functions"):
            return wire_tools(rules, {k: v for k, v in body.items() if k != "tool_choice"})
        if not isinstance(choice, str) and not _is_function_choice(choice):
            return "tool_choice"
    if tools is None:
        return body
    if not isinstance(tools, list) or (tools and not rules.tools):
        return "tools"
    if not all(_tool_passes(rules, tool) for tool in tools):
        return "tools"
    return _with_regex_checked(rules, body, tools)


def _is_function_choice(choice: Any) -> bool:
    return (
        isinstance(choice, dict)
        and choice.get("type") == "function"
        and isinstance(choice.get("function"), dict)
        and bool(choice["function"])
    )


def _tool_passes(rules: ChatRules, tool: Any) -> bool:
    if not isinstance(tool, dict) or not tool.keys() <= _FUNCTION_KEYS:
        return False
    function = tool.get("function")
    if tool.get("type") != "function" or not isinstance(function, dict):
        return False
    parameters = function.get("parameters")
    if parameters is None:
        return rules.strict_tools or "strict" not in function
    return isinstance(parameters, dict) and (
        rules.combinators or COMBINATORS.isdisjoint(parameters)
    )


def _with_regex_checked(
    rules: ChatRules, body: dict[str, Any], tools: list[Any]
) -> dict[str, Any] | str:
    text = orjson.dumps(tools)  # to look for a word in it is faster than to walk
    if not rules.cache_control and b'"cache_control"' in text:
        return "tools"
    if not rules.any_regex and b'"pattern' in text and not regexes_pass(tools):
        return "tools"
    if not rules.strict_tools and (b'"strict"' in text or b'"additionalProperties"' in text):
        return {**body, "tools": _without_strictness(tools)}
    return body


def regexes_pass(tools: list[Any]) -> bool:
    """LiteLLM removes what Python's `re` does not understand."""
    return all(_compiles(regex) for regex in _regexes(tools))


def _regexes(value: Any) -> Iterator[str]:
    """Every regex of JSON schemas, and some texts that only look like one."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "pattern" and isinstance(item, str):
                yield item
            elif key == "patternProperties" and isinstance(item, dict):
                yield from item
            yield from _regexes(item)
    elif isinstance(value, list):
        for item in value:
            yield from _regexes(item)


@lru_cache(maxsize=1024)
def _compiles(regex: str) -> bool:
    try:
        re.compile(regex)
    except (re.error, RecursionError, OverflowError):
        return False
    return True


def _without_strictness(value: Any) -> Any:
    """Tools for vLLM: no `strict`, no `additionalProperties: false`, at any depth."""
    if isinstance(value, dict):
        return {
            key: _without_strictness(item)
            for key, item in value.items()
            if key != "strict" and not (key == "additionalProperties" and item is False)
        }
    return [_without_strictness(item) for item in value] if isinstance(value, list) else value
