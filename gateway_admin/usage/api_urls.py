"""API routes of this app, mounted under /api/v1/."""

from django.urls import URLPattern, URLResolver, path
from rest_framework.routers import SimpleRouter

from gateway_admin.usage.api import UsageEventViewSet, UsageSummaryView

router = SimpleRouter()
router.register("usage/events", UsageEventViewSet, basename="api-usage-event")
urlpatterns: list[URLPattern | URLResolver] = [
    *router.urls,
    path("usage/summary/", UsageSummaryView.as_view(), name="api-usage-summary"),
]
