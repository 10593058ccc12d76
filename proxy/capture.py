"""Reads the answer on its way to the client: usage, text, errors, the first content.

Whole answers are parsed once; streams event by event. A stream's usage chunk that the
client did not ask for is taken out; its last event is held back by the edge until the
usage event is on disk. `model` is the public name of the model that served: LiteLLM names
the one that was asked for, but the provider's own after a fallback and on some routes.
"""

import logging
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import orjson

from proxy.errors import class_of_status, error_text, refine
from proxy.metering import Usage, usage_from_anthropic, usage_from_openai
from proxy.scan import SCAN_FROM_BYTES, SCANNED_KINDS, scan
from proxy.sse import payload_of, with_payload
from proxy.trace import Trace

logger = logging.getLogger("gateway.capture")

# What a provider may send has no limits; none of it may break an answer or its accounting.
UNREADABLE = (TypeError, ValueError, AttributeError, KeyError, IndexError, ArithmeticError)
# Whole answers larger than this are passed on without being parsed for usage.
PARSE_MAX_BYTES = 64 * 1024 * 1024
UNDECODED_MAX_BYTES = 64 * 1024


@dataclass(slots=True)
class Capture:
    """What was learned of one answer."""

    trace: Trace
    status: int = 0
    litellm_cost: Decimal | None = None  # LiteLLM's own opinion, from its header
    header_deployment: str | None = None
    usage: Usage | None = None
    error_class: str | None = None
    error: str | None = None
    ttft_ms: float | None = None
    sse_began: bool = False  # a stream's headers were received
    finished: bool = False  # the answer's last event was seen
    bytes_out: int = 0
    text: list[str] = field(default_factory=list)  # produced so far, for estimates
    _anthropic_usage: dict[str, Any] = field(default_factory=dict)
    malformed: bool = False  # an event could not be read: nothing after it is passed on
    _buffer: bytes = b""
    _ended: bool = False  # a choice told why it ended
    # Events of text that were passed on undecoded, and how their model's name is replaced.
    _renaming: tuple[bytes, bytes] | None = None
    _undecoded: list[bytes] = field(default_factory=list)
    _undecoded_bytes: int = 0

    # --- whole answers -------------------------------------------------------------------

    def read_whole(self, body: bytes, document: dict[str, Any] | None = None) -> bytes:
        """Usage or error of an answer that came in one piece; gives the body to pass on."""
        try:
            return self._read_whole(body, document)
        except UNREADABLE:
            logger.warning("an answer of %s could not be read for usage", self.trace.model)
            return body

    def _read_whole(self, body: bytes, document: dict[str, Any] | None) -> bytes:
        if self.status >= 400:
            self.read_error(body)
            return body
        kind = self.trace.inference.kind if self.trace.inference else "chat"
        self.finished = True
        if kind == "speech":
            text = str(self.trace.body.get("input", ""))
            self.usage = Usage(other_units={"input_character": Decimal(len(text))})
            return body
        if document is None and kind in SCANNED_KINDS and len(body) >= SCAN_FROM_BYTES:
            found = scan(body)
            if found is not None:
                self.usage = usage_from_openai(found.usage)
                return found.renamed(body, self._served_model())
        if document is None and len(body) <= PARSE_MAX_BYTES:
            document = _loads(body)
        if isinstance(document, dict):
            self._read_document(document, kind)
            if self._name_model(document):
                return orjson.dumps(document)
        elif kind == "transcription":
            self.usage = Usage()  # plain text, subtitles: nothing but LiteLLM's figure is known
        return body

    def _name_model(self, document: dict[str, Any]) -> bool:
        """Put the public name of the model that served in place; True if another stood there."""
        name, changed = self._served_model(), False
        for holder in (document, document.get("message"), document.get("response")):
            if isinstance(holder, dict) and isinstance(holder.get("model"), str):
                changed = changed or holder["model"] != name
                holder["model"] = name
        return self._seal_ids(document) or changed

    def _seal_ids(self, document: dict[str, Any]) -> bool:
        """Seal the id of a response that came straight from its provider."""
        if self.trace.seal_id is None:
            return False
        for holder in (document, document.get("response")):
            if isinstance(holder, dict) and holder.get("object") == "response":
                holder["id"] = self.trace.seal_id(str(holder.get("id") or ""))
        return True

    def _served_model(self) -> str:
        served = self.trace.served_by()
        return served["model"] if served is not None else self.trace.model

    def _read_document(self, document: dict[str, Any], kind: str) -> None:
        raw = document.get("usage")
        if isinstance(raw, dict):
            anthropic = kind == "messages"
            self.usage = usage_from_anthropic(raw) if anthropic else usage_from_openai(raw)
        if kind in ("image", "rerank", "moderation", "transcription", "count_tokens"):
            self.usage = self.usage or Usage()
            self._read_units(document, kind)
        if self.usage is None:
            self.text.append(_text_of_document(document))

    def _read_units(self, document: dict[str, Any], kind: str) -> None:
        assert self.usage is not None
        units = self.usage.other_units
        if kind == "image":
            units["image"] = Decimal(len(document.get("data") or []))
        elif kind == "rerank":
            billed = (document.get("meta") or {}).get("billed_units") or {}
            units["query"] = Decimal(str(billed.get("search_units") or 1))
        elif kind == "transcription" and "input_second" not in units:
            seconds = document.get("duration")
            if isinstance(seconds, int | float) and seconds > 0:
                units["input_second"] = Decimal(str(seconds))

    def read_error(self, body: bytes) -> None:
        """Class and text of an error answer."""
        document = _loads(body)
        found = document.get("error") if isinstance(document, dict) else None
        message = found.get("message") if isinstance(found, dict) else None
        self._fail(
            class_of_status(self.status), str(message or body[:500].decode("utf-8", "replace"))
        )

    def _fail(self, error_class: str, text: str) -> None:
        """Note the error; an attempt that already knows its own error knows it better."""
        last = self.trace.served_by()
        if last is not None and last["error_class"] is not None:
            self.error_class, self.error = last["error_class"], last["error"]
            return
        deployment = self.trace.deployment(last["deployment"]) if last else None
        self.error_class = refine(error_class, text)
        self.error = error_text(text, deployment.secrets if deployment else ())
        if last is not None:
            last["error_class"], last["error"] = self.error_class, self.error

    # --- streams -------------------------------------------------------------------------

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take in bytes of a stream; give back the whole events to pass on, in order."""
        data = self._buffer + chunk if self._buffer else chunk
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        *events, self._buffer = data.split(b"\n\n")
        out = []
        for event in events:
            kept: bytes | None = event
            if self.ttft_ms is not None and self._passes(event):
                kept = self._as_it_is(event)
            else:
                try:
                    kept = self._read_event(event)
                except UNREADABLE:
                    logger.warning("a stream event of %s could not be read", self.trace.model)
            if self.malformed:
                break
            if kept is not None:
                out.append(kept + b"\n\n")
        return out

    def end(self) -> list[bytes]:
        """The stream's end came: events that its provider left out.

        Some end without `[DONE]`; an answer with a reason for its end is whole all the same.
        """
        if self.finished or not self._ended or self.error_class is not None:
            return []
        self.finished = True
        return [b"data: [DONE]\n\n"]

    def _passes(self, event: bytes) -> bool:
        """Whether an event of a stream whose text has begun needs no decoding.

        A quote within a text is escaped, so these words with theirs are names of fields.
        """
        return (
            self._renaming is not None
            and event.startswith(b"data: {")
            and event.endswith(b"}")
            and b'"finish_reason":"' not in event
            and (b'"usage":' not in event or b'"usage":null' in event)
            and b'"error":' not in event
        )

    def _as_it_is(self, event: bytes) -> bytes:
        """A piece of text: kept for an estimate, passed on with the public name."""
        assert self._renaming is not None
        self._undecoded.append(event)
        self._undecoded_bytes += len(event)
        if self._undecoded_bytes > UNDECODED_MAX_BYTES:
            self.decode()
        return event.replace(*self._renaming)

    def decode(self) -> None:
        """Read the text of what was passed on undecoded, for counting its tokens."""
        events, self._undecoded, self._undecoded_bytes = self._undecoded, [], 0
        for event in events:
            document = _loads(event[6:])
            try:
                for choice in document["choices"]:
                    self.text.append(_text_of_choice(choice))
            except UNREADABLE:
                continue

    def rest(self) -> bytes:
        """Bytes after the last whole event."""
        rest, self._buffer = self._buffer, b""
        return rest

    def _read_event(self, event: bytes) -> bytes | None:
        data = payload_of(event)
        if data is None:
            return event
        if data == b"[DONE]":
            self.finished = True
            return event
        document = _loads(data)
        if not isinstance(document, dict):
            self.malformed = self.trace.inference is not None and self.trace.inference.kind in (
                "chat",
                "completion",
            )
            return event
        if document.get("error") or document.get("type") == "error":
            self._read_stream_error(document)
            return with_payload(event, document)
        named = document.get("model")
        if self._name_model(document):
            event = with_payload(event, document)
        kind = self.trace.inference.kind if self.trace.inference else "chat"
        if kind in ("chat", "completion") and self._renaming is None:
            self._learn_name(data, named)
        if kind == "messages":
            self._read_messages_event(document)
        elif kind in ("responses", "transcription", "image", "speech"):
            self._read_typed_event(document)
            if self.error_class is not None:
                return with_payload(event, document)
        else:
            return self._read_chat_chunk(event, document)
        return event

    def _learn_name(self, data: bytes, named: object) -> None:
        """How the provider writes the field that is given the public name."""
        for space in (b"", b" "):
            field = b'"model":' + space + orjson.dumps(named)
            # Azure's first event, which tells of its content filter, names no model.
            if isinstance(named, str) and named and data.count(field) == 1:
                self._renaming = (field, b'"model":' + orjson.dumps(self._served_model()))

    def _read_stream_error(self, document: dict[str, Any]) -> None:
        """Note a stream's error, and put what may be told of it in its place."""
        found = document.get("error")
        error = found if isinstance(found, dict) else document
        code = str(error.get("code") or "")
        status = int(code) if code.isdigit() else 500
        text = found if isinstance(found, str) else error.get("message")
        self.break_off(class_of_status(status), str(text or orjson.dumps(document).decode()))
        if isinstance(found, str):
            document["error"] = self.error
        else:
            error["message"] = self.error

    def break_off(self, error_class: str, text: str) -> None:
        """The stream failed after it began."""
        refined = refine(error_class, text)
        self._fail("cut_stream" if refined == "connection" else refined, text)

    def _read_chat_chunk(self, event: bytes, document: dict[str, Any]) -> bytes | None:
        raw = document.get("usage")
        choices = document.get("choices") or []
        if isinstance(raw, dict):
            self.usage = usage_from_openai(raw)
        for choice in choices:
            text = _text_of_choice(choice)
            if text:
                self._note_text(text)
            if isinstance(choice, dict) and choice.get("finish_reason"):
                self._ended = True
        if raw is None or self.trace.usage_wanted:
            return event
        if not any(_is_meaningful(choice) for choice in choices):
            return None
        del document["usage"]
        return with_payload(event, document)

    def _read_messages_event(self, document: dict[str, Any]) -> None:
        kind = document.get("type")
        if kind == "message_start":
            raw = (document.get("message") or {}).get("usage")
        else:
            raw = document.get("usage")
        if isinstance(raw, dict):
            known = {name: value for name, value in raw.items() if value is not None}
            self._anthropic_usage.update(known)
        if kind == "content_block_delta":
            delta = document.get("delta") or {}
            parts = ("text", "thinking", "partial_json")
            self._note_text("".join(str(delta[part]) for part in parts if delta.get(part)))
        elif kind == "message_delta":
            self.usage = usage_from_anthropic(self._anthropic_usage)
        elif kind == "message_stop":
            self.finished = True

    def _read_typed_event(self, document: dict[str, Any]) -> None:
        """Responses, transcriptions, speech and images stream events with a `type`."""
        kind = str(document.get("type", ""))
        if kind.endswith(".delta"):
            self._note_text(str(document.get("delta") or document.get("text") or ""))
        response = document.get("response")
        holder = response if isinstance(response, dict) else document
        raw = holder.get("usage")
        if isinstance(raw, dict):
            self.usage = usage_from_openai(raw)
        if kind in ("response.completed", "response.incomplete") or kind.endswith(".done"):
            self.finished = (
                self.finished
                or not kind.startswith("response.")
                or (kind in ("response.completed", "response.incomplete"))
            )
        elif kind == "response.failed":
            holder["error"] = holder.get("error") or {"message": "response failed"}
            self._read_stream_error(holder)
            self.finished = True

    def _note_text(self, text: str) -> None:
        if text:
            self.text.append(text)
            if self.ttft_ms is None:
                self.ttft_ms = self.trace.elapsed_ms()

    def reported_input(self) -> Usage | None:
        """Input of an unfinished Anthropic stream: told at its start, output only at its end."""
        if self._anthropic_usage.get("input_tokens"):
            return usage_from_anthropic({**self._anthropic_usage, "output_tokens": 0})
        return None


def _loads(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def _text_of_choice(choice: Any) -> str:
    """Everything a chunk's choice produced that costs output tokens."""
    if not isinstance(choice, dict):
        return ""
    delta = choice.get("delta") or {}
    parts = [choice.get("text"), delta.get("content"), delta.get("reasoning_content")]
    for call in delta.get("tool_calls") or []:
        function = call.get("function") or {}
        parts += [function.get("name"), function.get("arguments")]
    return "".join(part for part in parts if isinstance(part, str))


def _is_meaningful(choice: Any) -> bool:
    """Whether a choice says anything to the client (text, role, end)."""
    if not isinstance(choice, dict):
        return False
    delta = choice.get("delta") or {}
    return bool(choice.get("finish_reason") or choice.get("text") or any(delta.values()))


def _text_of_document(document: dict[str, Any]) -> str:
    """Text of a whole answer that reported no usage."""
    texts = []
    for choice in document.get("choices") or []:
        message = choice.get("message") or {}
        texts.append(str(message.get("content") or choice.get("text") or ""))
    return "".join(texts)
