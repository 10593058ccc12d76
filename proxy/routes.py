"""Which requests exist at all.

Matching is on the raw bytes of the request target, before any decoding, against an exact
table: an encoded, doubled, dotted or differently cased spelling of a path is simply not in
it. What LiteLLM then gets to see is our constant, never the client's spelling, and never
the client's query string.
"""

from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

Kind = Literal[
    "chat",
    "completion",
    "embedding",
    "responses",
    "messages",
    "count_tokens",
    "image",
    "transcription",
    "speech",
    "moderation",
    "rerank",
]
BodyFormat = Literal["json", "multipart", "either"]


@dataclass(frozen=True, slots=True)
class InferenceRoute:
    """One route of the provider-facing API. `name` is what events and metrics say."""

    name: str
    kind: Kind
    body: BodyFormat = "json"

    @property
    def anthropic_shape(self) -> bool:
        """Whether errors are written as Anthropic's clients expect them."""
        return self.kind in ("messages", "count_tokens")


_ROUTES = (
    InferenceRoute("/v1/chat/completions", "chat"),
    InferenceRoute("/v1/completions", "completion"),
    InferenceRoute("/v1/embeddings", "embedding"),
    InferenceRoute("/v1/responses", "responses"),
    InferenceRoute("/v1/messages", "messages"),
    InferenceRoute("/v1/messages/count_tokens", "count_tokens"),
    InferenceRoute("/v1/images/generations", "image"),
    InferenceRoute("/v1/images/edits", "image", "either"),
    InferenceRoute("/v1/audio/transcriptions", "transcription", "multipart"),
    InferenceRoute("/v1/audio/speech", "speech"),
    InferenceRoute("/v1/moderations", "moderation"),
    InferenceRoute("/v1/rerank", "rerank"),
)
_OTHER_SPELLINGS = {
    "/chat/completions": "/v1/chat/completions",
    "/completions": "/v1/completions",
    "/embeddings": "/v1/embeddings",
    "/rerank": "/v1/rerank",
    "/v2/rerank": "/v1/rerank",
}
_BY_NAME = {route.name: route for route in _ROUTES}
INFERENCE: dict[bytes, InferenceRoute] = {
    **{route.name.encode(): route for route in _ROUTES},
    **{path.encode(): _BY_NAME[name] for path, name in _OTHER_SPELLINGS.items()},
}

MODEL_LIST = frozenset({b"/v1/models", b"/models"})
MODEL_INFO = frozenset({b"/v1/model/info", b"/model/info"})
_MODEL_PREFIXES = (b"/v1/models/", b"/models/")

ALLOWED_UPSTREAM_PATHS = tuple(sorted(route.name for route in _ROUTES))


def model_in_path(raw_path: bytes) -> str | None:
    """Model name of `GET /v1/models/<name>`; None if the path is another one."""
    for prefix in _MODEL_PREFIXES:
        if raw_path.startswith(prefix) and len(raw_path) > len(prefix):
            return unquote(raw_path[len(prefix) :].decode("latin-1"))
    return None
