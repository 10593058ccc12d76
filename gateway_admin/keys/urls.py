"""Routes of the pages of this app."""

from django.urls import path

from gateway_admin.keys import team_views, views

app_name = "keys"
urlpatterns = [
    path("teams/", team_views.team_list, name="team-list"),
    path("teams/new/", team_views.team_create, name="team-create"),
    path("teams/<slug:slug>/", team_views.team_detail, name="team-detail"),
    path("teams/<slug:slug>/edit/", team_views.team_edit, name="team-edit"),
    path("teams/<slug:slug>/delete/", team_views.team_delete, name="team-delete"),
    path("teams/<slug:slug>/members/add/", team_views.member_add, name="member-add"),
    path("teams/<slug:slug>/members/<int:pk>/", team_views.member_change, name="member-change"),
    path(
        "teams/<slug:slug>/members/<int:pk>/remove/",
        team_views.member_remove,
        name="member-remove",
    ),
    path("keys/", views.key_list, name="key-list"),
    path("keys/export.csv", views.key_csv, name="key-csv"),
    path("keys/new/", views.key_create, name="key-create"),
    path("keys/new/models/", views.model_choices, name="model-choices"),
    path("keys/bulk/", views.key_bulk, name="key-bulk"),
    path("keys/<uuid:pk>/", views.key_detail, name="key-detail"),
    path("keys/<uuid:pk>/edit/", views.key_edit, name="key-edit"),
    path("keys/<uuid:pk>/block/", views.key_block, name="key-block"),
    path("keys/<uuid:pk>/unblock/", views.key_unblock, name="key-unblock"),
    path("keys/<uuid:pk>/revoke/", views.key_revoke, name="key-revoke"),
    path("keys/<uuid:pk>/first-call/", views.first_call, name="first-call"),
]
