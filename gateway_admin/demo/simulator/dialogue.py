"""A conversation in neutral form, and the turn that answers it.

Each provider module translates its request into a `Prompt` and a `Turn` back into its own
words, so that the rules of answering and counting are the same for all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from gateway_admin.demo.simulator.answers import (
    Answer,
    count_texts,
    count_words,
    instance_of,
    write_json,
    write_text,
)
from gateway_admin.demo.simulator.wire import Ask, RequestError, Usage, unique_hex

# Values of Prompt.tool_choice beside the name of a tool.
AUTO_TOOL, ANY_TOOL, NO_TOOL = "", "*", "-"


class Function(NamedTuple):
    """A tool that may be called; the schema is that of its arguments."""

    name: str
    schema: Any


@dataclass(slots=True)
class Prompt:
    """What is asked."""

    texts: Sequence[str]  # every text of the request, system prompt included
    messages: int
    last_role: str
    last_texts: Sequence[str]
    tools: list[Function] = field(default_factory=list)
    tool_choice: str = AUTO_TOOL
    limit: int | None = None  # output tokens
    as_json: bool = False
    schema: Any = None  # of the JSON answer

    @property
    def tokens(self) -> int:
        """Input tokens: words of all texts and tools, and a constant per message."""
        tools = [orjson.dumps(list(tool)).decode().replace(",", " ") for tool in self.tools]
        return count_texts([*self.texts, *tools], self.messages)

    def key(self, ask: Ask) -> str:
        """Return what the prompt is remembered by: model, credential and all texts."""
        return unique_hex("\x1f".join((ask.model, ask.credential, *self.texts)), 32)


class Call(NamedTuple):
    """A call of a tool. Its name counts as one token, as does each piece of the arguments."""

    name: str
    value: Any
    arguments: Answer  # the value as JSON text

    @property
    def tokens(self) -> int:
        return 1 + len(self.arguments.tokens)


class Turn(NamedTuple):
    """The answer: a text or calls of tools."""

    answer: Answer
    calls: list[Call]

    @property
    def tokens(self) -> int:
        return len(self.answer.tokens) + sum(call.tokens for call in self.calls)

    @property
    def finish(self) -> str:
        """`tools`, `limit` or `end`."""
        if self.calls:
            return "tools"
        return "limit" if self.answer.cut else "end"


def compose(ask: Ask, prompt: Prompt, index: int = 0) -> Turn:
    """Return the turn; `index` tells apart several answers to one prompt.

    A user's message is answered with a call of the first tool, if there are tools; one with
    the word "both" gets two calls. A tool's result is answered with text.
    """
    seed = (ask.model, *prompt.last_texts, index)
    tools = _tools_to_call(prompt)
    calls = []
    for place, tool in enumerate(tools):
        value = instance_of(tool.schema, *seed, place)
        calls.append(Call(tool.name, value, write_json(value)))
    if calls:
        return Turn(Answer([], False), calls)
    if prompt.as_json:
        value = {"answer": write_text(*seed, wanted=ask.output_tokens).text}
        if prompt.schema:
            value = instance_of(prompt.schema, *seed)
        return Turn(write_json(value, prompt.limit), [])
    return Turn(write_text(*seed, limit=prompt.limit, wanted=ask.output_tokens), [])


def _tools_to_call(prompt: Prompt) -> list[Function]:
    tools, choice = prompt.tools, prompt.tool_choice
    if not tools or choice == NO_TOOL:
        return []
    if choice not in (AUTO_TOOL, ANY_TOOL):
        tools = [tool for tool in tools if tool.name == choice]
        if not tools:
            raise RequestError("bad_request", f"The tool {choice!r} is not among the tools.")
    elif choice == AUTO_TOOL and prompt.last_role != "user":
        return []
    twice = any("both" in text.lower().split() for text in prompt.last_texts)
    return tools[:1] * (2 if twice else 1)


def explicit_cache(ask: Ask, usage: Usage, cached: Sequence[str]) -> None:
    """Book the texts up to the last cache breakpoint: written at first use, read afterwards."""
    if not cached:
        return
    count = min(sum(count_words(text) for text in cached), usage.input_tokens)
    if ask.cache.seen(unique_hex("\x1f".join((ask.model, ask.credential, *cached)), 32)):
        usage.cache_read_tokens = count
    else:
        usage.cache_write_tokens = count
