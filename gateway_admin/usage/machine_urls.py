"""The machine endpoints of usage and counters, mounted under /fleet/v1/."""

from django.urls import URLPattern, path

from gateway_admin.usage import machine

urlpatterns: list[URLPattern] = [
    path("usage", machine.usage),
    path("counters", machine.counters),
]
