"""Views of the Cache page."""

from zoneinfo import ZoneInfo

from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET

from gateway_admin.accounts.roles import Role, role_of
from gateway_admin.dashboards import cache
from gateway_admin.dashboards.cache_forms import CacheForm
from gateway_admin.dashboards.views import environment_of, person_of, scope_of, today_of
from gateway_admin.frame.charts import Column, chart_response, empty_response
from gateway_admin.lib.csv_export import csv_response
from gateway_admin.usage.rollups import rollup_time_zone


@require_GET
def cache_page(request: HttpRequest) -> HttpResponse:
    """What the cache answers and saves, and who keeps answers in it."""
    person, environment = person_of(request), environment_of(request)
    form = CacheForm(request, environment, person)
    now = timezone.now()
    today = today_of(now, ZoneInfo(rollup_time_zone()))
    query = request.GET.urlencode()
    context = {
        "form": form,
        "environment": environment,
        "report": cache.cache_report(scope=scope_of(request), form=form, today=today),
        "chart_query": f"?{query}" if query else "",
        "narrow": form.is_narrow(form.narrowing),
        "as_of": now,
    }
    if request.htmx:  # type: ignore[attr-defined]
        return render(request, "dashboards/cache.html#results", context)
    context |= {
        "keeping": cache.keeping_of(user=person, environment=environment),
        "is_admin": role_of(person) is Role.ADMIN,
        "issues_keys": role_of(person) in {Role.ADMIN, Role.DEVELOPER},
    }
    return render(request, "dashboards/cache.html", context)


@require_GET
def cache_csv(request: HttpRequest) -> StreamingHttpResponse:
    """Hits and what they saved by day and group, as the page filters them."""
    form = CacheForm(request, environment_of(request), person_of(request))
    today = today_of(timezone.now(), ZoneInfo(rollup_time_zone()))
    return csv_response(
        filename=f"cache-{form.environment.slug}-{today}.csv",
        header=cache.CSV_HEADER,
        rows=cache.cache_csv_rows(scope=scope_of(request), form=form, today=today),
    )


@require_GET
def cache_daily(request: HttpRequest) -> JsonResponse:
    """Requests by day, by who answered them."""
    import plotly.graph_objects as go

    form = CacheForm(request, environment_of(request), person_of(request))
    now = timezone.now()
    today = today_of(now, ZoneInfo(rollup_time_zone()))
    found = cache.daily_hits(scope=scope_of(request), form=form, today=today)
    if found.is_empty:
        return empty_response("No requests in this time.", as_of=now, source="daily rollups")
    days = [day.isoformat() for day in found.days]
    series = (("From the cache", found.hits, "3"), ("From providers", found.others, "other"))
    figure = go.Figure(
        [go.Bar(name=name, x=days, y=counts, meta={"hue": hue}) for name, counts, hue in series]
    )
    figure.update_layout(barmode="stack", yaxis={"title": "Requests"}, xaxis={"type": "date"})
    return chart_response(
        figure,
        title=found.title,
        columns=[
            Column("Day", "time"),
            Column("From the cache", "count"),
            Column("From providers", "count"),
            Column("Saved", "money", unit="USD"),
        ],
        rows=[list(row) for row in zip(days, found.hits, found.others, found.saved, strict=True)],
        as_of=now,
        source="daily rollups",
    )
