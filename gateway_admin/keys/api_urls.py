"""API routes of this app, mounted under /api/v1/."""

from rest_framework.routers import SimpleRouter

from gateway_admin.keys.api import KeyViewSet, TeamViewSet

router = SimpleRouter()
router.register("teams", TeamViewSet, basename="api-team")
router.register("keys", KeyViewSet, basename="api-key")
urlpatterns = router.urls
