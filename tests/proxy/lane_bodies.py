"""Bodies of requests, from the ordinary to the odd, to be sent on both lanes."""

import itertools
from collections.abc import Iterator
from typing import Any

from tests.proxy.lane_pairs import HELLO

Body = dict[str, Any]

SCHEMA: Body = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOL: Body = {
    "type": "function",
    "function": {"name": "forecast", "description": "The weather", "parameters": SCHEMA},
}
STRICT: Body = {"type": "function", "function": {**TOOL["function"], "strict": True}}
FORMAT: Body = {
    "type": "json_schema",
    "json_schema": {"name": "trip", "schema": SCHEMA, "strict": True},
}
STREAM: Body = {"stream": True}
TOOL_CALL: Body = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "forecast", "arguments": '{"city": "Ulm"}'},
}


def message(content: Any, role: str = "user", **more: Any) -> Body:
    """One message."""
    return {"role": role, "content": content, **more}


def asking(*messages: Body, **more: Any) -> Body:
    """A chat body."""
    return {"messages": list(messages) or HELLO, **more}


def image(**more: Any) -> Body:
    """A part that is an image."""
    return {"type": "image_url", "image_url": {"url": "https://x.example/y.png"} | more}


TEXT = {"type": "text", "text": "What is this?"}
DIALOGUE = [
    message("Hello"),
    message(None, "assistant", tool_calls=[TOOL_CALL]),
    message("sunny", "tool", tool_call_id="call_1"),
]

# What every application sends: it runs direct wherever the wire format is OpenAI's.
ORDINARY: list[Body] = [
    asking(),
    asking(message("Be short.", "system"), message("Hello")),
    asking(temperature=0.2, top_p=0.9, max_tokens=20),
    asking(max_completion_tokens=20),
    asking(stop="the"),
    asking(stop=["the", "a"]),
    asking(n=2),
    asking(seed=7),
    asking(user="customer-1"),
    asking(presence_penalty=0.5, frequency_penalty=-0.5, logit_bias={"50256": -100}),
    asking(logprobs=True, top_logprobs=2),
    asking(response_format={"type": "json_object"}),
    asking(response_format={"type": "text"}),
    asking(response_format=FORMAT),
    asking(tools=[TOOL]),
    asking(tools=[TOOL, STRICT], tool_choice="auto", parallel_tool_calls=False),
    asking(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "forecast"}}),
    asking(tools=[TOOL], tool_choice="none"),
    asking(*DIALOGUE, tools=[TOOL]),
    asking(message([TEXT, image(detail="low")])),
    asking(message([TEXT, image(url="data:image/png;base64,AA")])),
    asking(message([{"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}])),
    asking(message("Hello", name="bob"), message("Hi", "assistant"), message("Grüße 😀 \u2028")),
    asking(metadata={"team": "blue"}, store=True),
    asking(service_tier="auto", prompt_cache_key="k", safety_identifier="s"),
    asking(stream=False),
    asking(temperature=None, max_tokens=None, tools=None, stop=None),
    asking(top_k=5, min_p=0.1, chat_template_kwargs={"enable_thinking": False}),
    asking(verbosity="low"),
    asking(**STREAM),
    asking(**STREAM, stream_options={"include_usage": True}),
    asking(**STREAM, stream_options={"include_usage": False, "include_obfuscation": False}),
    asking(**STREAM, tools=[TOOL]),
    asking(**STREAM, logprobs=True, max_tokens=9),
    asking(message("x" * 100_000)),
]

# What some send; where LiteLLM would rewrite it, it is LiteLLM that sends it.
ODD: list[Body] = [
    asking(message("Be short.", "developer"), message("Hello")),
    asking(reasoning_effort="low"),
    asking(reasoning_effort="none", temperature=0.5),
    asking(reasoning_effort={"effort": "low"}),
    asking(temperature=1, reasoning_effort="high"),
    asking(max_tokens=5, max_completion_tokens=7),
    asking(stop=list("abcdef")),
    asking(tool_choice="auto"),
    asking(tools=[TOOL], tool_choice={"type": "auto"}),
    asking(tools=[TOOL], tool_choice="required"),
    asking(tools=[]),
    asking(functions=[{"name": "f", "parameters": {}}], function_call="auto"),
    asking(thinking={"type": "enabled", "budget_tokens": 1024}),
    asking(web_search_options={"search_context_size": "low"}),
    asking(modalities=["text"], prediction={"type": "content", "content": "x"}),
    asking(stream_options={"include_usage": True}),
    asking(message([{"type": "image_url", "image_url": "https://x.example/y.png"}])),
    asking(message([image(format="image/png")])),
    asking(message([{**TEXT, "cache_control": {"type": "ephemeral"}}])),
    asking(message([{"type": "file", "file": {"file_data": "data:application/pdf;base64,AA"}}])),
    asking(message([{"type": "file", "file": {"file_id": "file-1"}}])),
    asking(message([{"type": "video_url", "video_url": {"url": "https://x.example/y.mp4"}}])),
    asking(message("Hi"), message([TEXT], "assistant"), message("And?")),
    asking(
        message("Hi"),
        message("x", "assistant", refusal=None, annotations=[], reasoning_content="r"),
        message("And?"),
    ),
    asking(message("Hi"), message("x", "assistant", thinking_blocks=[]), message("And?")),
    asking({"content": "no role"}),
    asking(*DIALOGUE[:2], message([TEXT, image()], "tool", tool_call_id="call_1")),
    asking(message("r", "function", name="f")),
]


def _tools() -> Iterator[Body]:
    parameters: list[Body] = [
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "^a+$"}}},
        {"type": "object", "properties": {"a": {"type": "string", "pattern": r"^\p{L}+$"}}},
        {"anyOf": [{"type": "object", "properties": {}}]},
        {"type": "object", "patternProperties": {r"\p{Lu}": {"type": "string"}}},
    ]
    for given in parameters:
        yield {"type": "function", "function": {"name": "f", "parameters": given}}
    yield {"type": "function", "function": {"name": "f"}}
    yield {"type": "function", "function": {"name": "f", "parameters": None, "strict": None}}
    yield {**TOOL, "cache_control": {"type": "ephemeral"}}
    yield {**TOOL, "input_examples": [1], "defer_loading": True}
    yield {"type": "custom", "custom": {"name": "c", "description": "d"}}
    yield {"name": "f", "input_schema": {"type": "object"}}


ODD += [asking(tools=[tool]) for tool in _tools()]

_EMBEDDED: tuple[Any, ...] = ("Hello", ["Hello", "there"], [1, 2, 3], [[1, 2], [3]])
_EMBEDDED_AS: tuple[Body, ...] = (
    {},
    {"encoding_format": "float"},
    {"encoding_format": "base64"},
    {"encoding_format": "float", "dimensions": 256, "user": "u"},
    {"encoding_format": "float", "input_type": "query", "metadata": {"a": "b"}},
    {"encoding_format": None, "dimensions": None},
)
EMBEDDINGS: list[Body] = [
    {"input": given, **more} for given, more in itertools.product(_EMBEDDED, _EMBEDDED_AS)
]

COMPLETIONS: list[Body] = [
    {"prompt": "Hello there"},
    {"prompt": ["Hello", "there"], "max_tokens": 5},
    {"prompt": "Hello", "temperature": 0, "top_p": 0.5, "seed": 1, "user": "u"},
    {"prompt": "Hello", "logprobs": 2, "echo": False, "best_of": 1, "suffix": "s", "stop": ["x"]},
    {"prompt": "Hello", "presence_penalty": 0.1, "frequency_penalty": 0.1, "logit_bias": {"5": 1}},
    {"prompt": "Hello", "stop": list("abcdef"), "metadata": {"a": "b"}},
    {"prompt": "Hello", "min_tokens": 1, "guided_json": {"a": 1}},
    {"prompt": "Hello", **STREAM},
    {"prompt": "Hello", **STREAM, "stream_options": {"include_usage": True}},
    {"prompt": [1, 2, 3]},
    {"prompt": "Hello", "reasoning_effort": "low"},
]


def _function(**more: Any) -> Body:
    """A tool of the Responses API."""
    return {"type": "function", "name": "forecast", "parameters": SCHEMA, "strict": True} | more


_TALK: list[Body] = [
    {"role": "developer", "content": "Be short."},
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "And now?"},
]
_CALLED: list[Body] = [
    {"role": "user", "content": "Hi"},
    {"type": "function_call", "call_id": "c", "name": "forecast", "arguments": "{}", "id": "fc_1"},
    {"type": "function_call_output", "call_id": "c", "output": "sunny"},
]
_SEEN: list[Body] = [
    {
        "role": "user",
        "content": [
            {"type": "input_text", "text": "What?"},
            {"type": "input_image", "image_url": "https://x.example/y.png", "detail": "low"},
        ],
    }
]
RESPONSES: list[Body] = [
    {"input": "Hello there"},
    {"input": "Hello", "instructions": "Be short.", "max_output_tokens": 30, "temperature": 0.5},
    {"input": _TALK, "store": False, "top_p": 0.5},
    {"input": _SEEN, "metadata": {"a": "b"}, "user": "u", "truncation": "auto"},
    {"input": "Hello", "tools": [_function()], "tool_choice": "auto"},
    {"input": "Hello", "tools": [_function()], "parallel_tool_calls": False},
    {"input": _CALLED, "tools": [_function()]},
    {"input": "Hello", "text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}}},
    {"input": "Hello", "include": ["message.output_text.logprobs"], "top_logprobs": 2},
    {"input": "Hello", "service_tier": "auto", "prompt_cache_key": "k", "safety_identifier": "s"},
    {"input": "Hello", "stream": False, "background": False, "max_tool_calls": 3},
    {"input": "Hello", "temperature": None, "instructions": None, "tools": None},
    {"input": "Hello", **STREAM},
    {"input": "Hello", **STREAM, "tools": [_function()]},
    {"input": _TALK, **STREAM, "max_output_tokens": 16},
]
ODD_RESPONSES: list[Body] = [
    {"input": "Hello", "reasoning": {"effort": "low"}},
    {"input": "Hello", "reasoning": {"effort": "none"}, "temperature": 0.5},
    {"input": "Hello", "reasoning": {"summary": "auto"}},
    {"input": "Hello", "max_output_tokens": 5},
    {"input": "Hello", "max_tokens": 5},
    {"input": "Hello", "reasoning_effort": "low"},
    {"input": "Hello", "foo": "bar"},
    {"input": "Hello", "tools": [{"type": "web_search"}]},
    {"input": "Hello", "tools": [_function(parameters={"anyOf": [{"type": "object"}]})]},
    {"input": "Hello", "tools": [_function(parameters={"properties": {"pattern": r"\p{L}"}})]},
    {"input": "Hello", "tools": [TOOL]},
    {"input": [{"type": "item_reference", "id": "msg_1"}]},
    {"input": [{"role": "user", "content": "x", "id": None}]},
]
