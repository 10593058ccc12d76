"""Routes of the pages of this app."""

from django.urls import URLPattern, path

from gateway_admin.fleet import breaker_views, views

app_name = "fleet"
urlpatterns: list[URLPattern] = [
    path("publish/", views.publish, name="publish"),
    path("publish/pending/", views.pending_count, name="pending-count"),
    path("publish/<slug:slug>/<int:number>/", views.revision_detail, name="revision-detail"),
    path("publish/<slug:slug>/<int:number>/rollout/", views.rollout, name="rollout"),
    path("publish/<slug:slug>/<int:number>/rollback/", views.revision_rollback, name="rollback"),
    path("breakers/", breaker_views.breaker_list, name="breaker-list"),
    path("breakers/<uuid:pk>/", breaker_views.breaker_card, name="breaker-card"),
    path("breakers/<uuid:pk>/order/", breaker_views.breaker_order, name="breaker-order"),
    path("replicas/", views.replica_list, name="replica-list"),
    path("replicas/identity/", views.identity_reveal, name="identity-reveal"),
    path("replicas/token/rotate/", views.token_rotate, name="token-rotate"),
]
