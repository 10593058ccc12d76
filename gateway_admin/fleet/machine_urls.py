"""Machine endpoints for replicas, mounted under /fleet/v1/. Usage is taken in by `usage`."""

from django.urls import URLPattern, path

from gateway_admin.fleet import machine

urlpatterns: list[URLPattern] = [
    path("sync", machine.sync),
    path("revisions/<int:number>", machine.revision),
    path("policies", machine.policies),
]
