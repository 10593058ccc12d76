"""API routes of this app, mounted under /api/v1/."""

from django.urls import URLPattern, URLResolver, path
from rest_framework.routers import SimpleRouter

from gateway_admin.fleet.api import DraftView, PublishView, ReplicaViewSet, RevisionViewSet
from gateway_admin.fleet.breaker_api import (
    BreakerOrderViewSet,
    BreakerTransitionViewSet,
    BreakerViewSet,
)

router = SimpleRouter()
router.register("breakers", BreakerViewSet, basename="api-breaker")
router.register("breaker-transitions", BreakerTransitionViewSet, basename="api-transition")
router.register("breaker-orders", BreakerOrderViewSet, basename="api-breaker-order")
router.register("revisions", RevisionViewSet, basename="api-revision")
router.register("replicas", ReplicaViewSet, basename="api-replica")
urlpatterns: list[URLPattern | URLResolver] = [
    path("environments/<slug:slug>/draft/", DraftView.as_view(), name="api-draft"),
    path("environments/<slug:slug>/publish/", PublishView.as_view(), name="api-publish"),
    *router.urls,
]
