"""Deterministic answers and the token rule.

The rule: a token is a word (text between white space). An answer has 20 to 60 tokens chosen
by a hash of the model and the last message; each word of it is one token. Input is counted
as the words of every text in the request plus OVERHEAD_PER_MESSAGE for each message.
"""

import math
import re
import struct
from collections.abc import Iterable, Sequence
from hashlib import blake2b, shake_128
from typing import Any, NamedTuple

import orjson

OVERHEAD_PER_MESSAGE = 4
IMAGE_TOKENS = 85
SHORTEST, LONGEST = 20, 60

# Each with its space is one token to OpenAI's tokenizers, too.
_WORD_LIST = """
amber anchor apple arrow autumn basin beacon bench border branch bridge bronze cabin
canal candle canyon cedar chapel circle clay cliff clock cloud coast copper coral
cotton crystal current dawn delta desert dome dust eagle echo elm ember estate feather
fern field flag flame forest fountain garden gate glacier globe granite grass hammer
harbor hill hollow horizon island ivory jungle kettle ladder lake lantern leaf ledge
lemon letter linen lodge maple marble market mill mirror moon morning mosaic mountain
mouse needle north oak oasis ocean olive orbit paint paper path pearl pine planet
plaza pocket pond quarry quartz quiet rabbit rain reef ribbon ridge river road roof
rope salt sand satin season shadow shell shore silver slate spring stone storm summit
sunset temple thunder tide timber tower trail valley velvet vessel village violet
water wave wheat window winter wood zenith
"""
_WORDS = _WORD_LIST.split()

_PIECES = re.compile(r"\s*\S+")


class Answer(NamedTuple):
    """The pieces of a text, one token each, and whether the limit cut it."""

    tokens: list[str]
    cut: bool

    @property
    def text(self) -> str:
        return "".join(self.tokens)


def count_words(text: str) -> int:
    """Return the number of words."""
    return len(text.split())


def count_texts(texts: Iterable[str], messages: int = 1) -> int:
    """Return the input tokens of texts that came in so many messages; at least 1."""
    words = sum(len(text.split()) for text in texts)
    return max(1, words + OVERHEAD_PER_MESSAGE * messages)


def number_of(*parts: object) -> int:
    """Return a 64 bit number derived from the parts."""
    text = "\x1f".join(map(str, parts)).encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")


def write_text(*seed: object, limit: int | None = None, wanted: int | None = None) -> Answer:
    """Return an answer derived from the seed; `wanted` overrides its natural length."""
    state = number_of(*seed)
    length = wanted if wanted is not None else SHORTEST + state % (LONGEST - SHORTEST + 1)
    words: list[str] = []
    for _ in range(min(length, limit) if limit is not None else length):
        state = (state * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
        word = _WORDS[(state >> 33) % len(_WORDS)]
        words.append(" " + word if words else word.capitalize())
    cut = limit is not None and length > limit
    if words and not cut:
        words[-1] += "."
    return Answer(words, cut)


def write_json(value: Any, limit: int | None = None) -> Answer:
    """Return the value as JSON text in pieces, cut at the limit."""
    text = orjson.dumps(value).decode().replace(":", ": ").replace(",", ", ")
    pieces = _PIECES.findall(text)
    if limit is not None and len(pieces) > limit:
        return Answer(pieces[:limit], True)
    return Answer(pieces, False)


def instance_of(schema: Any, *seed: object) -> Any:
    """Return a value that fits the JSON schema (the keywords that tools commonly use)."""
    if not isinstance(schema, dict):
        return {}
    if "const" in schema:
        return schema["const"]
    choices = schema.get("enum")
    if choices:
        return choices[number_of(*seed) % len(choices)]
    for union in ("anyOf", "oneOf"):
        if schema.get(union):
            return instance_of(schema[union][0], *seed)
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((name for name in kind if name != "null"), "null")
    kind = str(kind).lower() if kind else "object"
    if kind == "object":
        fields = schema.get("properties") or {}
        return {name: instance_of(part, *seed, name) for name, part in fields.items()}
    if kind == "array":
        return [instance_of(schema.get("items"), *seed, "item")]
    return _scalar(kind, schema, *seed)


def _scalar(kind: str, schema: dict[str, Any], *seed: object) -> Any:
    number = number_of(*seed)
    low = schema.get("minimum", 0)
    scalars: dict[str, Any] = {
        "integer": int(low) + number % 10,
        "number": float(low) + number % 100 / 10,
        "boolean": number % 2 == 0,
        "null": None,
    }
    return scalars.get(kind, _WORDS[number % len(_WORDS)])


def vector(text: str, dimensions: int) -> list[float]:
    """Return a vector of unit length derived from the text."""
    noise = shake_128(text.encode()).digest(2 * dimensions)
    values = struct.unpack(f"<{dimensions}h", noise)
    norm = math.hypot(*values) or 1.0
    return [value / norm for value in values]


def texts_of(content: Any) -> Sequence[str]:
    """Return the texts in a message's content: a string, or parts in any provider's form."""
    if isinstance(content, str):
        return (content,)
    if not isinstance(content, list):
        return ()
    texts: list[str] = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict):
            texts.extend(_part_texts(part))
    return texts


def _part_texts(part: dict[str, Any]) -> Sequence[str]:
    for name in ("text", "input_text", "output", "content"):
        if isinstance(part.get(name), str):
            return (part[name],)
        if isinstance(part.get(name), list):
            return texts_of(part[name])
    if part.get("type") in ("image_url", "image", "input_image"):
        return (" x" * IMAGE_TOKENS,)
    return ()
