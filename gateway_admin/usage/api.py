"""REST API of usage: single requests and sums, as far as the token's person may see them."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.http import Http404
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import viewsets
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from gateway_admin.accounts.models import User
from gateway_admin.catalog.models import Environment
from gateway_admin.lib.api import KeysetPagination
from gateway_admin.lib.errors import InvalidInput
from gateway_admin.usage import serializers
from gateway_admin.usage.event_queries import EventFilters, event_to_see, events_matching
from gateway_admin.usage.labels import labels_of
from gateway_admin.usage.models import UsageEvent
from gateway_admin.usage.queries import Filters, Period, Scope, spend, total, visible_to
from gateway_admin.usage.rollups import rollup_time_zone

DEFAULT_DAYS = 30


def _scope(request: Request) -> Scope:
    assert isinstance(request.user, User)  # RolePermission lets nobody else through
    return visible_to(request.user)


def _asked(serializer: Any) -> dict[str, Any]:
    """Valid query parameters; the environment's slug becomes its id."""
    serializer.is_valid(raise_exception=True)
    values: dict[str, Any] = dict(serializer.validated_data)
    if slug := values.get("environment"):
        environment = Environment.objects.filter(slug=slug).first()
        if environment is None:
            raise InvalidInput("There is no environment of this slug.", field="environment")
        values["environment"] = environment.pk
    return values


class EventPagination(KeysetPagination):
    """Newest first."""

    ordering = ("-started_at", "-event_id")  # type: ignore[assignment]


@extend_schema(tags=["usage"])
class UsageEventViewSet(viewsets.GenericViewSet[UsageEvent]):
    """Single requests with attempts, tokens, unit prices and cost; never prompts."""

    queryset = UsageEvent.objects.none()
    serializer_class = serializers.UsageEventSerializer
    pagination_class = EventPagination
    filter_backends: list[Any] = []
    lookup_field = "event_id"
    lookup_value_regex = "[0-9a-fA-F-]{36}"

    @extend_schema(parameters=[serializers.EventFilterSerializer])
    def list(self, request: Request) -> Response:
        """List requests, newest first."""
        values = _asked(serializers.EventFilterSerializer(data=request.query_params))
        filters = EventFilters(start=values.pop("from", None), end=values.pop("to", None), **values)
        page = self.paginate_queryset(events_matching(scope=_scope(request), filters=filters))
        return self.get_paginated_response(self.get_serializer(page, many=True).data)

    def retrieve(self, request: Request, event_id: str) -> Response:
        """Show a request."""
        try:
            event = event_to_see(_scope(request), UUID(event_id))
        except ValueError as error:
            raise Http404("Not a request id.") from error
        if event is None:
            raise Http404("No such request.")
        return Response(self.get_serializer(event).data)


class UsageSummaryView(APIView):
    """Sums from the rollups."""

    @extend_schema(
        tags=["usage"],
        parameters=[serializers.SummaryFilterSerializer],
        responses=serializers.SummarySerializer,
    )
    def get(self, request: Request) -> Response:
        """Sum requests, tokens and cost, by a group and by day or hour as asked."""
        values = _asked(serializers.SummaryFilterSerializer(data=request.query_params))
        zone = rollup_time_zone()
        group, interval = values.pop("group_by", None), values.pop("interval", None)
        first, last = _days(values.pop("from", None), values.pop("to", None), interval, zone)
        rows = spend(
            scope=_scope(request),
            filters=Filters(**values),
            period=_period(first, last, interval, ZoneInfo(zone)),
            group=group,
            by_time=interval is not None,
        )
        labels = labels_of(group or "", (row.group for row in rows))
        document = {
            "from": first,
            "to": last,
            "time_zone": zone,
            "group_by": group,
            "interval": interval,
            "total": total(rows),
            "results": [
                {
                    "at": row.at.isoformat() if row.at else None,
                    "group": None if row.group is None else str(row.group),
                    "name": labels.name(row.group) if group else None,
                    "totals": row.totals,
                }
                for row in rows
            ],
        }
        return Response(serializers.SummarySerializer(document).data)


def _days(
    first: date | None, last: date | None, interval: str | None, zone: str
) -> tuple[date, date]:
    last = last or max(timezone.now().astimezone(ZoneInfo(zone)).date(), first or date.min)
    days = 1 if interval == "hour" else DEFAULT_DAYS
    first = first or last - timedelta(days=days - 1)
    longest = serializers.LONGEST_HOURLY_DAYS if interval == "hour" else serializers.LONGEST_DAYS
    if (last - first).days >= longest:
        raise InvalidInput(f"More than {longest} days; ask for a shorter time.", field="from")
    return first, last


def _period(first: date, last: date, interval: str | None, zone: ZoneInfo) -> Period:
    if interval != "hour":
        return Period("day", first, last + timedelta(days=1))
    start = datetime.combine(first, time.min, zone).astimezone(UTC)
    end = datetime.combine(last + timedelta(days=1), time.min, zone).astimezone(UTC)
    return Period("hour", start, end)
