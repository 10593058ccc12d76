"""API routes of this app, mounted under /api/v1/."""

from django.urls import URLPattern, URLResolver
from rest_framework.routers import SimpleRouter

from gateway_admin.catalog import api

router = SimpleRouter()
router.register("environments", api.EnvironmentViewSet, basename="api-environment")
router.register("providers", api.ProviderViewSet, basename="api-provider")
router.register("credentials", api.CredentialViewSet, basename="api-credential")
router.register("models", api.ModelViewSet, basename="api-model")
router.register("aliases", api.AliasViewSet, basename="api-alias")
router.register("deployments", api.DeploymentViewSet, basename="api-deployment")
router.register("chains", api.ChainViewSet, basename="api-chain")

urlpatterns: list[URLPattern | URLResolver] = router.urls
