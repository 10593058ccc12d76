"""API routes of this app, mounted under /api/v1/."""

from rest_framework.routers import SimpleRouter

from gateway_admin.keys.api import KeyViewSet, TeamViewSet
from gateway_admin.keys.rule_api import (
    BlockViewSet,
    BudgetViewSet,
    CacheViewSet,
    CustomerViewSet,
    LimitViewSet,
)

router = SimpleRouter()
router.register("teams", TeamViewSet, basename="api-team")
router.register("keys", KeyViewSet, basename="api-key")
router.register("budgets", BudgetViewSet, basename="api-budget")
router.register("limits", LimitViewSet, basename="api-limit")
router.register("blocks", BlockViewSet, basename="api-block")
router.register("customers", CustomerViewSet, basename="api-customer")
router.register("cache", CacheViewSet, basename="api-cache")
urlpatterns = router.urls
