"""Routes of the pages of this app."""

from django.urls import path

from gateway_admin.demo import views

app_name = "demo"
urlpatterns = [path("settings/demonstration/remove/", views.remove, name="remove")]
