"""OpenAI responses API: plain and streamed, text and function calls."""

from typing import Any

from gateway_admin.demo.simulator.answers import texts_of
from gateway_admin.demo.simulator.dialogue import (
    ANY_TOOL,
    AUTO_TOOL,
    NO_TOOL,
    Function,
    Prompt,
    Turn,
    compose,
)
from gateway_admin.demo.simulator.openai_chat import call_id, usage_of
from gateway_admin.demo.simulator.wire import (
    Ask,
    Chunk,
    Headers,
    Reply,
    RequestError,
    Stream,
    Usage,
    dump,
    integer,
    sse,
    unique_hex,
)

_RESULTS = ("function_call_output", "custom_tool_call_output")


def responses(ask: Ask, headers: Headers) -> Reply | Stream:
    """Answer POST responses."""
    prompt = _prompt(ask.payload)
    turn = compose(ask, prompt)
    usage = usage_of(ask, prompt, [turn])
    ident = ask.ident("resp_", 48)
    items = _items(ident, turn)
    if ask.payload.get("stream"):
        chunks = _Events(ask, ident, turn, items, usage).build()
        return Stream(chunks, usage, headers=headers, response_id=ident)
    body = _response(ask, ident, turn, items, usage)
    return Reply(dump(body), usage, headers=headers, response_id=ident)


def _prompt(payload: dict[str, Any]) -> Prompt:
    given = payload.get("input")
    if not given or not isinstance(given, str | list):
        raise RequestError("bad_request", "Missing required parameter: 'input'.")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    texts = [text for item in items for text in _item_texts(item)]
    instructions = payload.get("instructions")
    if isinstance(instructions, str):
        texts.append(instructions)
    last = items[-1]
    form = (payload.get("text") or {}).get("format") or {}
    tools = [
        Function(str(tool.get("name")), tool.get("parameters"))
        for tool in payload.get("tools") or []
        if tool.get("type") == "function"
    ]
    choice = payload.get("tool_choice")
    wanted = {"none": NO_TOOL, "required": ANY_TOOL}.get(str(choice), AUTO_TOOL)
    return Prompt(
        texts=texts,
        messages=len(items),
        last_role="tool" if last.get("type") in _RESULTS else str(last.get("role")),
        last_texts=_item_texts(last),
        tools=tools,
        tool_choice=str(choice.get("name")) if isinstance(choice, dict) else wanted,
        limit=integer(payload, "max_output_tokens"),
        as_json=form.get("type") in ("json_object", "json_schema"),
        schema=form.get("schema"),
    )


def _item_texts(item: dict[str, Any]) -> list[str]:
    texts = list(texts_of(item.get("content")))
    texts += [item[name] for name in ("output", "arguments") if isinstance(item.get(name), str)]
    return texts


def _items(ident: str, turn: Turn) -> list[dict[str, Any]]:
    """Return the output items, complete."""
    if turn.calls:
        return [
            {
                "id": "fc_" + unique_hex(f"{ident}{place}", 48),
                "type": "function_call",
                "status": "completed",
                "arguments": call.arguments.text,
                "call_id": call_id(ident, 0, place),
                "name": call.name,
            }
            for place, call in enumerate(turn.calls)
        ]
    return [
        {
            "id": "msg_" + unique_hex(ident, 48),
            "type": "message",
            "status": "incomplete" if turn.answer.cut else "completed",
            "content": [_part(turn.answer.text)],
            "role": "assistant",
        }
    ]


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _usage_json(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cache_read_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _response(
    ask: Ask,
    ident: str,
    turn: Turn,
    items: list[dict[str, Any]],
    usage: Usage | None,
) -> dict[str, Any]:
    """Return the response object; without usage it is still in progress."""
    payload = ask.payload
    done, cut = usage is not None, turn.answer.cut
    status = ("incomplete" if cut else "completed") if done else "in_progress"
    return {
        "id": ident,
        "object": "response",
        "created_at": ask.created,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if done and cut else None,
        "instructions": payload.get("instructions"),
        "max_output_tokens": payload.get("max_output_tokens"),
        "model": ask.model,
        "output": items if done else [],
        "parallel_tool_calls": payload.get("parallel_tool_calls", True),
        "previous_response_id": payload.get("previous_response_id"),
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": payload.get("store", True),
        "temperature": payload.get("temperature", 1.0),
        "text": payload.get("text") or {"format": {"type": "text"}},
        "tool_choice": payload.get("tool_choice", "auto"),
        "tools": payload.get("tools") or [],
        "top_p": payload.get("top_p", 1.0),
        "truncation": "disabled",
        "usage": _usage_json(usage) if usage else None,
        "user": payload.get("user"),
        "metadata": payload.get("metadata") or {},
    }


class _Events:
    """Builds the events of one stream, numbered from 0."""

    def __init__(
        self, ask: Ask, ident: str, turn: Turn, items: list[dict[str, Any]], usage: Usage
    ) -> None:
        self.ask, self.ident, self.turn = ask, ident, turn
        self.items, self.usage = items, usage
        self.chunks: list[Chunk] = []

    def build(self) -> list[Chunk]:
        begun = _response(self.ask, self.ident, self.turn, self.items, None)
        # Reasoning is billed and never shown: it leaves with the first event.
        self._add("response.created", self.usage.reasoning_tokens, response=begun)
        self._add("response.in_progress", 0, response=begun)
        for index, item in enumerate(self.items):
            if item["type"] == "message":
                self._message(index, item)
            else:
                self._call(index, item)
        ended = _response(self.ask, self.ident, self.turn, self.items, self.usage)
        self._add(f"response.{ended['status']}", 0, response=ended)
        return self.chunks

    def _add(self, kind: str, tokens: int, **fields: Any) -> None:
        event = {"type": kind, "sequence_number": len(self.chunks), **fields}
        self.chunks.append((sse(event, kind), tokens))

    def _message(self, index: int, item: dict[str, Any]) -> None:
        place = {"item_id": item["id"], "output_index": index, "content_index": 0}
        begun = {**item, "status": "in_progress", "content": []}
        self._add("response.output_item.added", 0, output_index=index, item=begun)
        self._add("response.content_part.added", 0, **place, part=_part(""))
        for token in self.turn.answer.tokens:
            self._add("response.output_text.delta", 1, **place, delta=token, logprobs=[])
        text = self.turn.answer.text
        self._add("response.output_text.done", 0, **place, text=text, logprobs=[])
        self._add("response.content_part.done", 0, **place, part=_part(text))
        self._add("response.output_item.done", 0, output_index=index, item=item)

    def _call(self, index: int, item: dict[str, Any]) -> None:
        place = {"item_id": item["id"], "output_index": index}
        begun = {**item, "status": "in_progress", "arguments": ""}
        self._add("response.output_item.added", 1, output_index=index, item=begun)
        for piece in self.turn.calls[index].arguments.tokens:
            self._add("response.function_call_arguments.delta", 1, **place, delta=piece)
        done = {"arguments": item["arguments"], "name": item["name"]}
        self._add("response.function_call_arguments.done", 0, **place, **done)
        self._add("response.output_item.done", 0, output_index=index, item=item)
