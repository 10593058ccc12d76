"""Keyset paging for tables: any page costs the same, and pages stay right while rows arrive.

The address holds `after` or `before`: the sort value and primary key of the row at the
page's edge, as opaque text. A cursor that does not read is taken as the first page.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from django.core.exceptions import ValidationError
from django.db.models import Model, Q, QuerySet
from django.http import QueryDict

Row = TypeVar("Row", bound=Model)


@dataclass(frozen=True)
class Order:
    """A total order: one column that is never NULL, then the primary key."""

    field: str
    descending: bool = False

    def columns(self, *, backwards: bool = False) -> list[str]:
        sign = "-" if self.descending != backwards else ""
        return [f"{sign}{self.field}", f"{sign}pk"]

    def beyond(self, value: Any, key: Any, *, backwards: bool = False) -> Q:
        """Rows past the edge; written so that an index on (field, pk) serves it as a range."""
        direction = "lt" if self.descending != backwards else "gt"
        return Q(**{f"{self.field}__{direction}e": value}) & (
            Q(**{f"{self.field}__{direction}": value}) | Q(**{f"pk__{direction}": key})
        )


@dataclass(frozen=True)
class Page(Generic[Row]):
    """One page of rows and the query strings of its neighbours ("" where there is none)."""

    rows: Sequence[Row]
    next_url: str
    previous_url: str
    first_url: str


def page_of(
    rows: QuerySet[Row], *, order: Order, query: QueryDict, size: int = 50, path: str = ""
) -> Page[Row]:
    """Cut one page out of `rows`, in one query. `path` precedes the neighbours' addresses."""
    backwards = "before" in query
    edge = _read_cursor(query.get("before") or query.get("after") or "")
    if edge is None:
        backwards = False
    cut = rows.order_by(*order.columns(backwards=backwards))
    try:
        if edge is not None:
            cut = cut.filter(order.beyond(*edge, backwards=backwards))
        found = list(cut[: size + 1])
    except (ValidationError, ValueError, TypeError):  # a cursor of another order, or made up
        return page_of(rows, order=order, query=_without_cursor(query), size=size, path=path)
    more = len(found) > size
    found = found[:size]
    if backwards:
        found.reverse()
    return _page(found, order, query, path, backwards=backwards, more=more, edge=edge is not None)


def _page(
    found: list[Row],
    order: Order,
    query: QueryDict,
    path: str,
    *,
    backwards: bool,
    more: bool,
    edge: bool,
) -> Page[Row]:
    has_next = more or backwards
    has_previous = (more if backwards else edge) and bool(found)
    return Page(
        rows=found,
        next_url=_address(query, path, "after", found[-1], order) if has_next and found else "",
        previous_url=_address(query, path, "before", found[0], order) if has_previous else "",
        first_url=f"{path}?{_without_cursor(query).urlencode()}" if edge else "",
    )


def _address(query: QueryDict, path: str, name: str, row: Model, order: Order) -> str:
    kept = _without_cursor(query)
    value = getattr(row, order.field)
    plain = {"t": value.isoformat()} if isinstance(value, datetime) else value
    text = json.dumps([plain, str(row.pk)], separators=(",", ":"))
    kept[name] = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    return f"{path}?{kept.urlencode()}"


def _without_cursor(query: QueryDict) -> QueryDict:
    kept = query.copy()
    for name in ("after", "before"):
        kept.pop(name, None)
    return kept


def _read_cursor(text: str) -> tuple[Any, str] | None:
    try:
        value, key = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        if isinstance(value, dict):
            value = datetime.fromisoformat(value["t"])
    except (ValueError, KeyError, TypeError):
        return None
    return value, str(key)
