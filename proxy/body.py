"""The client's body -> the body that LiteLLM may see.

JSON objects and multipart forms go through the same rules: steering fields are refused or
stripped (see fields.py), `model` is replaced by the resolved name. Multipart parts are cut
out and passed on as the bytes they are; nothing is decoded but the small text fields.
"""

import re
from dataclasses import dataclass
from typing import Any

import orjson

from proxy.fields import ORDINARY, is_refused, is_stripped
from proxy.refusals import Refusal, bad_body, body_too_large
from proxy.routes import InferenceRoute

# Metadata keys LiteLLM acts on are never among what a client may pass to a provider.
_METADATA_KEY = re.compile(
    r"(?!user_api_key|_|litellm|tags$|model_info$|headers$|guardrail|trace|session_id$|previous_"
    r"|attempted_|original_|mask_|requester_|hidden_params$|spend_|pillar_|applied_|policy_"
    r"|client_disconnected$|error_information$|generation_|existing_trace|parent_|debug_|endpoint$"
    r"|prompt_management|deployment|api_base$|caching|standard_|proxy_|secret_|routing_|disable_"
    r"|opted_|cache|model_group|global_|agent|usage|vector_store|mcp_)"
)
_DISPOSITION_NAME = re.compile(rb'(?i)content-disposition:[^\r\n]*?;\s*name="([^"\r\n]*)"')
_FILENAME = re.compile(rb"(?i)content-disposition:[^\r\n]*?;\s*filename\*?=")
_BOUNDARY = re.compile(r'(?i)boundary="?([^";,\s]{1,70})"?')
FIELD_MAX_BYTES = 1024 * 1024


@dataclass(slots=True)
class FormPart:
    """One part of a multipart form, headers and content as received."""

    name: str
    raw: bytes  # headers, blank line, content
    is_file: bool

    @property
    def value(self) -> str:
        """Content of a text field."""
        return self.raw.partition(b"\r\n\r\n")[2].decode("utf-8", "replace")


async def read_body(scope: Any, receive: Any, limit_bytes: int) -> bytes:
    """Whole body, or Refusal when it exceeds the limit (before reading, when announced)."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > limit_bytes:
            raise body_too_large(limit_bytes)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit_bytes:
            raise body_too_large(limit_bytes)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


def parse_json(raw: bytes) -> dict[str, Any]:
    """The body as an object, or a Refusal that says what is wrong."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise bad_body(
            f"The request body is not valid JSON: {error}. Send a JSON object.",
            code="invalid_json",
        ) from None
    if not isinstance(body, dict):
        raise bad_body("The request body must be a JSON object.", code="invalid_json")
    return body


def clean_json(body: dict[str, Any], route: InferenceRoute) -> None:
    """Refuse or strip steering fields, in place."""
    if body.keys() <= ORDINARY:
        _refuse_gateway_tools(body.get("tools"))
        return
    for name in [name for name in body if is_stripped(name)]:
        del body[name]
    for name in body:
        if is_refused(name):
            raise _steering(name)
    metadata = body.pop("metadata", None)
    kept = _clean_metadata(metadata, route)
    if kept:
        body["metadata"] = kept
    _refuse_gateway_tools(body.get("tools"))


def _steering(name: str) -> Refusal:
    return bad_body(
        f"The field '{name[:100]}' is not accepted from clients: addresses, credentials and "
        "routing are set by the gateway's admins. Remove it.",
        param=name[:100],
        code="field_not_allowed",
    )


def _clean_metadata(metadata: object, route: InferenceRoute) -> dict[str, str]:
    if not isinstance(metadata, dict):
        return {}
    if route.kind in ("messages", "count_tokens"):
        user_id = metadata.get("user_id")
        return {"user_id": user_id} if isinstance(user_id, str) else {}
    return {
        key: value
        for key, value in metadata.items()
        if isinstance(value, str) and _METADATA_KEY.match(key)
    }


def _refuse_gateway_tools(tools: object) -> None:
    """A tool that points at LiteLLM's own MCP gateway would reach around the allowlist."""
    for tool in tools if isinstance(tools, list) else []:
        if isinstance(tool, dict) and str(tool.get("server_url", "")).startswith("litellm"):
            raise bad_body(
                "Tools of the gateway's own MCP server are not offered here. Remove the tool.",
                param="tools",
                code="field_not_allowed",
            )


def parse_form(raw: bytes, content_type: str) -> tuple[bytes, list[FormPart]]:
    """Boundary and parts of a multipart form, or a Refusal."""
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise bad_body("The multipart body has no boundary in its Content-Type.")
    boundary = found.group(1).encode("latin-1")
    pieces = (b"\r\n" + raw).split(b"\r\n--" + boundary)
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise bad_body("The multipart body does not end with its boundary.")
    parts = []
    for piece in pieces[1:-1]:
        part = piece.removeprefix(b"\r\n")
        head = part.partition(b"\r\n\r\n")[0]
        named = _DISPOSITION_NAME.search(head)
        if named is None or len(_DISPOSITION_NAME.findall(head)) != 1:
            raise bad_body("A part of the multipart body has no single name.")
        parts.append(
            FormPart(
                name=named.group(1).decode("utf-8", "replace"),
                raw=part,
                is_file=_FILENAME.search(head) is not None,
            )
        )
    return boundary, parts


def clean_form(parts: list[FormPart]) -> list[FormPart]:
    """The same rules as for JSON, by field name (also `metadata[...]` and the like)."""
    kept = []
    for part in parts:
        base = part.name.partition("[")[0]
        if is_refused(base):
            raise _steering(base)
        if not is_stripped(base) and base != "metadata":
            kept.append(part)
    return kept


def form_fields(parts: list[FormPart]) -> dict[str, Any]:
    """Text fields by name; of a repeated `model` field LiteLLM takes the last, so do we."""
    return {
        part.name: part.value
        for part in parts
        if not part.is_file and len(part.raw) <= FIELD_MAX_BYTES
    }


def write_form(boundary: bytes, parts: list[FormPart], model: str) -> bytes:
    """The form with exactly one `model` field."""
    head = b'Content-Disposition: form-data; name="model"\r\n\r\n'
    chosen = FormPart(name="model", raw=head + model.encode(), is_file=False)
    others = [part for part in parts if part.name != "model"]
    body = b"".join(b"--" + boundary + b"\r\n" + part.raw + b"\r\n" for part in [chosen, *others])
    return body + b"--" + boundary + b"--\r\n"
