"""Routes of the pages of this app."""

from django.urls import path

from gateway_admin.accounts import audit_views, views

app_name = "accounts"
urlpatterns = [
    path("setup/<str:secret>/", views.setup, name="setup"),
    path("people/", views.people_list, name="people-list"),
    path("people/new/", views.person_create, name="person-create"),
    path("people/<int:pk>/", views.person_detail, name="person-detail"),
    path("people/<int:pk>/link/", views.person_link, name="person-link"),
    path("people/<int:pk>/deactivate/", views.person_deactivate, name="person-deactivate"),
    path("people/<int:pk>/reactivate/", views.person_reactivate, name="person-reactivate"),
    path("settings/", views.organisation_settings, name="settings"),
    path("settings/tokens/", views.token_list, name="token-list"),
    path("settings/tokens/new/", views.token_create, name="token-create"),
    path("settings/tokens/<uuid:pk>/revoke/", views.token_revoke, name="token-revoke"),
    path("audit/", audit_views.audit_list, name="audit-list"),
    path("audit/export.csv", audit_views.audit_csv, name="audit-csv"),
    path("switch-environment/", views.switch_environment, name="switch-environment"),
]
