"""How long a provider asks to be left alone: Retry-After and the rate limits' reset headers."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

RESET_MAX_S = 3600.0  # nobody is left alone for longer on the word of a header

_EPOCH_S = 1e9
_PARTS = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
# "…-remaining-…" beside each "…-reset-…": only a used up limit is worth waiting for.
_RESET = re.compile(r"^(x-ratelimit|anthropic-ratelimit)-(?:(.+)-)?reset(?:-(.+))?$")


def reset_s(headers: Iterable[tuple[str, str]], now: datetime | None = None) -> float | None:
    """Seconds until the provider wants to be called again; None when it does not say.

    Retry-After (RFC 9110, 10.2.3) and its millisecond variant win. Else the latest reset
    among the limits that are used up (OpenAI's `x-ratelimit-reset-requests: 6m0s`,
    Anthropic's `anthropic-ratelimit-tokens-reset: <RFC 3339 time>`).
    """
    moment = now or datetime.now(UTC)
    found = {name.lower(): value.strip() for name, value in reversed(list(headers))}
    for name in ("retry-after-ms", "retry-after"):
        wait_s = _wait_s(found.get(name), moment, 0.001 if name.endswith("ms") else 1.0)
        if wait_s is not None:
            return wait_s
    waits = [
        wait_s
        for name, value in found.items()
        if _RESET.match(name) and _used_up(found, name)
        for wait_s in [_wait_s(value, moment, 1.0)]
        if wait_s is not None
    ]
    return max(waits, default=None)


def _used_up(headers: dict[str, str], name: str) -> bool:
    remaining = headers.get(name.replace("reset", "remaining"))
    return remaining is not None and remaining.partition(".")[0] in ("0", "-1")


def _wait_s(text: str | None, now: datetime, unit_s: float) -> float | None:
    """Seconds of a number, a duration such as `6m0s`, an HTTP date or an RFC 3339 time."""
    if not text:
        return None
    seconds: float | None = None
    try:
        seconds = float(text) * unit_s
    except ValueError:
        parts = _PARTS.findall(text)
        if parts and "".join(n + u for n, u in parts) == text:
            seconds = sum(float(number) * _UNIT_S[unit] for number, unit in parts)
        else:
            seconds = _until(text, now)
    if seconds is None or not seconds < float("inf"):  # also refuses nan
        return None
    if seconds > _EPOCH_S:
        seconds -= now.timestamp()  # a moment, told in seconds since 1970
    return min(max(seconds, 0.0), RESET_MAX_S)


def _until(text: str, now: datetime) -> float | None:
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = parse(text)
        except (TypeError, ValueError):
            continue
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return (moment - now).total_seconds()
    return None
