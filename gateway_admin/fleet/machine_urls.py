"""Machine endpoints for replicas, mounted under /fleet/v1/."""

from django.urls import URLPattern

urlpatterns: list[URLPattern] = []
