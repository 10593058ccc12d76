"""One thing that is not well, as the overview tells it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

NAMED = 3  # of a longer list


@dataclass(frozen=True)
class Condition:
    """`key` names it while it lasts, so that only news is read aloud."""

    key: str
    tone: str  # error: requests fail or money is not counted; warning: served with less
    title: str
    meaning: str
    now: str  # what the product does about it
    since: datetime | None = None
    url: str = ""
    action: str = ""


def earliest(moments: Iterable[datetime | None]) -> datetime | None:
    return min((moment for moment in moments if moment is not None), default=None)


def names_of(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b, c and 4 more`."""
    if len(names) > NAMED:
        return f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
