"""All routes. The API and the machine endpoints have their own modules."""

from django.urls import include, path

urlpatterns = [
    path("", include("gateway_admin.supervisor.urls")),
    path("", include("gateway_admin.dashboards.urls")),
    path("", include("gateway_admin.catalog.urls")),
    path("", include("gateway_admin.keys.urls")),
    path("", include("gateway_admin.accounts.urls")),
    path("", include("gateway_admin.fleet.urls")),
    path("", include("gateway_admin.demo.urls")),
    path("fleet/v1/", include("gateway_admin.fleet.machine_urls")),
    path("fleet/v1/", include("gateway_admin.usage.machine_urls")),
    path("api/v1/", include("gateway_admin.api_urls")),
    path("account/", include("allauth.urls")),
]

handler500 = "gateway_admin.supervisor.middleware.failed"
handler404 = "gateway_admin.supervisor.middleware.not_found"
