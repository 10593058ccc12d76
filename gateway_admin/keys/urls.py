"""Routes of the pages of this app."""

from django.urls import URLPattern

app_name = "keys"
urlpatterns: list[URLPattern] = []
