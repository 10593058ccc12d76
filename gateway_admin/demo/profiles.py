"""How demonstration traffic is distributed: over time, over keys, in size and in speed.

Sizes are log-normal. "code" has the parameters of the public Azure code-completion trace of
2023 (median prompt near 1,100 tokens with sigma 1.36, median answer near 16 with sigma 0.85);
"agent" and "retrieval" have the long prompts (means of 9,000 to 16,000 tokens) and the share
of repeated prefixes (a good third) measured in the Mooncake trace of 2024. The rest lies
between. Speeds are what such models usually reach: they are nobody's measurement.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random

from gateway_admin.demo import organisation as tables

GROWTH = 2.1  # the last day against the first
KEY_EXPONENT = 1.05  # of the share by rank: the busiest few keys make most of the traffic
LONGEST_PROMPT = 180_000  # tokens


@dataclass(frozen=True)
class Shape:
    """Sizes and habits of one workload. Medians in tokens; sigma of the logarithm."""

    prompt: float
    prompt_sigma: float
    answer: float
    answer_sigma: float
    streamed: float  # share of requests
    cached: float  # mean share of the prompt that the provider had cached
    hours: str  # key of HOURS
    weekend: float  # traffic of a Saturday or Sunday against a weekday
    customers: float = 0.0  # share of requests that name an end customer


SHAPES: dict[str, Shape] = {
    "chat": Shape(820, 1.0, 190, 0.9, 0.86, 0.10, "day", 0.55, 0.7),
    "support": Shape(1_500, 0.8, 150, 0.7, 0.55, 0.28, "service", 0.62, 0.8),
    "retrieval": Shape(7_200, 0.7, 260, 0.8, 0.45, 0.36, "office", 0.25, 0.3),
    "code": Shape(1_100, 1.36, 16, 0.85, 0.30, 0.20, "office", 0.16),
    "agent": Shape(11_500, 0.8, 340, 1.0, 0.70, 0.38, "office", 0.30),
    "batch": Shape(2_300, 0.6, 120, 0.5, 0.02, 0.05, "night", 0.85),
    "embedding": Shape(420, 0.9, 0, 0.0, 0.0, 0.0, "service", 0.70),
    "trial": Shape(600, 1.2, 260, 1.0, 0.75, 0.0, "office", 0.35),
}

# Relative traffic per local hour of day, 0 to 23.
HOURS: dict[str, tuple[float, ...]] = {
    "office": (1, 1, 1, 1, 1, 2, 5, 14, 34, 48, 52, 47, 33, 41, 52, 50, 43, 30, 16, 9, 6, 4, 3, 2),
    "service": (6, 4, 3, 3, 4, 7, 14, 26, 38, 46, 50, 48, 42, 43, 46, 45, 42, 40, 38, 34, 28, 22,
                16, 10),
    "day": (5, 3, 2, 2, 2, 4, 9, 18, 27, 33, 36, 37, 35, 34, 36, 37, 38, 41, 46, 50, 48, 38, 24,
            11),
    "night": (50, 52, 50, 44, 34, 20, 8, 5, 5, 6, 6, 5, 5, 5, 6, 6, 6, 6, 7, 9, 12, 20, 34, 45),
}  # fmt: skip


@dataclass(frozen=True)
class Speed:
    """`first_ms`: median until the first token; `token_ms`: mean per further token."""

    first_ms: float
    token_ms: float


SPEEDS: dict[str, Speed] = {
    "gpt-4.1": Speed(520, 13),
    "gpt-4.1-mini": Speed(340, 9),
    "o4-mini": Speed(2_900, 10),
    "claude-sonnet-4-5": Speed(950, 15),
    "claude-haiku-4-5": Speed(480, 8),
    "gemini-2.5-pro": Speed(2_400, 9),
    "gemini-2.5-flash": Speed(410, 6),
    "nova-lite": Speed(430, 7),
    "llama-3.1-8b": Speed(160, 21),
    "text-embedding-3-small": Speed(85, 0),
}
REASONING = {"o4-mini": 0.62, "gemini-2.5-pro": 0.45}  # share of the answer's tokens


def key_weights(keys: Sequence[tables.KeyRow]) -> list[float]:
    """Relative traffic of the keys, in their order: a power law."""
    return [
        (0.25 if key.environment != tables.MAIN else 1.0) / (rank + 1) ** KEY_EXPONENT
        for rank, key in enumerate(keys)
    ]


def hourly_rate(workload: str, local: datetime) -> float:
    """Relative traffic of a workload in this local hour; a weekday's hours sum to 1."""
    shape = SHAPES[workload]
    hours = HOURS[shape.hours]
    weekday = (
        shape.weekend if local.weekday() >= 5 else (1.0, 1.08, 1.06, 1.02, 0.9)[local.weekday()]
    )
    return hours[local.hour] / sum(hours) * weekday


def growth(age_days: float) -> float:
    """Traffic so many days before the end, against the end."""
    return float(GROWTH ** (-age_days / tables.DAYS))


def counted(draw: Random, expected: float) -> int:
    """A Poisson draw: how many requests come where so many are expected."""
    if expected > 30:
        return max(0, round(draw.gauss(expected, math.sqrt(expected))))
    limit, product, count = math.exp(-expected), draw.random(), 0
    while product > limit:
        product *= draw.random()
        count += 1
    return count


def sizes(draw: Random, shape: Shape, longest: int) -> tuple[int, int]:
    """Tokens of a prompt and of its answer."""
    ceiling = min(longest, LONGEST_PROMPT)
    prompt = int(draw.lognormvariate(math.log(shape.prompt), shape.prompt_sigma)) + 8
    answer = 0
    if shape.answer:
        answer = int(draw.lognormvariate(math.log(shape.answer), shape.answer_sigma)) + 1
    return min(prompt, ceiling), min(answer, 8_000)


def durations(draw: Random, model: str, *, prompt: int, answer: int) -> tuple[float, float]:
    """Milliseconds until the first token and in all."""
    speed = SPEEDS[model]
    first = speed.first_ms * draw.lognormvariate(0, 0.38) + prompt * 0.012
    return first, first + answer * speed.token_ms * draw.lognormvariate(0, 0.22)


def in_incident(local: datetime, last_day: datetime) -> bool:
    """Whether this local moment lies in the overload; `last_day` is the end, in local time."""
    begins = (last_day - timedelta(days=tables.INCIDENT_DAYS_AGO)).replace(
        hour=tables.INCIDENT_LOCAL_HOUR, minute=0, second=0, microsecond=0
    )
    return begins <= local < begins + timedelta(hours=tables.INCIDENT_HOURS)
