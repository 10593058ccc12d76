"""Routes of the pages of this app."""

from django.urls import URLPattern, path, re_path

from gateway_admin.dashboards import cache_views, charts, views

app_name = "dashboards"
urlpatterns: list[URLPattern] = [
    path("", views.overview_page, name="overview"),
    path("overview/requests.json", charts.overview_requests, name="overview-requests"),
    path("first-call/", views.first_call, name="first-call"),
    path("first-key/", views.first_key, name="first-key"),
    path("cost/", views.cost_page, name="cost"),
    path("cost/daily.json", charts.cost_daily, name="cost-daily"),
    path("cost/export.csv", views.cost_csv, name="cost-csv"),
    path("cache/", cache_views.cache_page, name="cache"),
    path("cache/daily.json", cache_views.cache_daily, name="cache-daily"),
    path("cache/export.csv", cache_views.cache_csv, name="cache-csv"),
    path("latency/", views.latency_page, name="latency"),
    re_path(
        r"^latency/(?P<measure>latency|first-token|overhead)\.json$",
        charts.latency_lines,
        name="latency-lines",
    ),
    path("latency/errors.json", charts.latency_errors, name="latency-errors"),
    path("latency/export.csv", views.latency_csv, name="latency-csv"),
    path("requests/", views.requests_page, name="requests"),
    path("requests/export.csv", views.requests_csv, name="requests-csv"),
    path("requests/<uuid:event_id>/", views.request_detail, name="request-detail"),
]
