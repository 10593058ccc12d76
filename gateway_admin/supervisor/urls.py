"""Health and metrics; the middleware answers them before everything else."""

from django.urls import path

from gateway_admin.supervisor import health

app_name = "supervisor"
urlpatterns = [
    path("livez", health.livez, name="livez"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", health.metrics, name="metrics"),
]
