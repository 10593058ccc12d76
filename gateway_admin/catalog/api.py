"""REST API of supply: the pages' services behind JSON. Administrators write; see `read_roles`."""

from typing import Any, ClassVar

from django.db.models import QuerySet
from django.utils.functional import SimpleLazyObject
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, status, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer

from gateway_admin.accounts.models import User
from gateway_admin.accounts.roles import Role
from gateway_admin.catalog import queries, services
from gateway_admin.catalog import serializers as shapes
from gateway_admin.catalog.models import (
    Credential,
    Deployment,
    Environment,
    FallbackChain,
    Model,
    ModelAlias,
    Provider,
)
from gateway_admin.catalog.traffic import signs_of
from gateway_admin.lib.api import KeysetPagination

EVERYBODY = tuple(Role)
ADMINS = (Role.ADMIN,)


class ByName(KeysetPagination):
    ordering = ("name", "id")  # type: ignore[assignment]


class BySlug(KeysetPagination):
    ordering = "slug"


class ById(KeysetPagination):
    ordering = "id"


class ServiceViewSet(
    mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Any]
):
    """Reads by the usual mixins; writes by the three hooks, each of which calls a service."""

    read_roles: ClassVar[tuple[Role, ...]] = ADMINS
    http_method_names = ["get", "post", "patch", "delete", "head", "options"]

    def create(self, request: Request) -> Response:
        serializer = self._validated(data=request.data)
        row = self.add(self.actor, dict(serializer.validated_data))
        return Response(self._shown(row), status=status.HTTP_201_CREATED)

    def partial_update(self, request: Request, **_: Any) -> Response:
        row = self.get_object()
        serializer = self._validated(row, data=request.data, partial=True)
        return Response(self._shown(self.change(self.actor, row, dict(serializer.validated_data))))

    def destroy(self, request: Request, **_: Any) -> Response:
        self.remove(self.actor, self.get_object())
        return Response(status=status.HTTP_204_NO_CONTENT)

    @property
    def actor(self) -> User:
        user = self.request.user
        assert isinstance(user, User)
        return user

    def add(self, actor: User, data: dict[str, Any]) -> Any:
        raise NotImplementedError

    def change(self, actor: User, row: Any, data: dict[str, Any]) -> Any:
        raise NotImplementedError

    def remove(self, actor: User, row: Any) -> None:
        raise NotImplementedError

    def _validated(self, *args: Any, **kwargs: Any) -> BaseSerializer[Any]:
        serializer = self.get_serializer(*args, **kwargs)
        serializer.is_valid(raise_exception=True)
        return serializer

    def _shown(self, row: Any) -> Any:
        """The row as a GET would show it now."""
        fresh = self.get_queryset().get(pk=row.pk)
        return self.get_serializer(fresh).data


class EnvironmentViewSet(ServiceViewSet):
    """dev, staging, prod: own deployments, credentials, keys, defaults and fleet."""

    queryset = Environment.objects.all()
    serializer_class = shapes.EnvironmentSerializer
    pagination_class = BySlug
    lookup_field = "slug"
    read_roles = EVERYBODY

    def add(self, actor: User, data: dict[str, Any]) -> Environment:
        return services.environment_create(actor=actor, **data)

    def change(self, actor: User, row: Environment, data: dict[str, Any]) -> Environment:
        return services.environment_update(actor=actor, environment=row, **data)

    def remove(self, actor: User, row: Environment) -> None:
        services.environment_delete(actor=actor, environment=row)


class ProviderFilter(filters.FilterSet):  # type: ignore[misc]
    kind = filters.ChoiceFilter(choices=Provider.Kind.choices)


class ProviderViewSet(ServiceViewSet):
    """Who answers. `kind` decides what its credentials need."""

    queryset = Provider.objects.all()
    serializer_class = shapes.ProviderSerializer
    filterset_class = ProviderFilter
    pagination_class = ByName

    def add(self, actor: User, data: dict[str, Any]) -> Provider:
        return services.provider_create(actor=actor, **data)

    def change(self, actor: User, row: Provider, data: dict[str, Any]) -> Provider:
        return services.provider_update(actor=actor, provider=row, name=data.get("name", row.name))

    def remove(self, actor: User, row: Provider) -> None:
        services.provider_delete(actor=actor, provider=row)


class EnvironmentFilter(filters.FilterSet):  # type: ignore[misc]
    environment = filters.CharFilter(field_name="environment__slug", label="Environment's slug")


class CredentialFilter(EnvironmentFilter):
    provider = filters.CharFilter(field_name="provider__slug", label="Provider's slug")
    enabled = filters.BooleanFilter()


class CredentialViewSet(ServiceViewSet):
    """Access to a provider in one environment. `secret` is write-only.

    A PATCH without `secret` leaves the stored one untouched; with it, all of its fields are
    replaced by a new version, in force from the next publish on.
    """

    queryset = Credential.objects.select_related("environment", "provider", "secret")
    serializer_class = shapes.CredentialSerializer
    filterset_class = CredentialFilter

    def add(self, actor: User, data: dict[str, Any]) -> Credential:
        enabled = data.pop("enabled", True)
        credential = services.credential_create(actor=actor, **data)
        if not enabled:
            services.credential_update(actor=actor, credential=credential, enabled=False)
        return credential

    def change(self, actor: User, row: Credential, data: dict[str, Any]) -> Credential:
        secret = data.pop("secret", None)
        return services.credential_change(actor=actor, credential=row, secret=secret, **data)

    def remove(self, actor: User, row: Credential) -> None:
        services.credential_delete(actor=actor, credential=row)


class ModelFilter(filters.FilterSet):  # type: ignore[misc]
    name = filters.CharFilter()
    mode = filters.ChoiceFilter(choices=Model.Mode.choices)
    environment = filters.CharFilter(
        field_name="deployments__environment__slug",
        distinct=True,
        label="Slug of an environment that it is deployed in",
    )


class ModelViewSet(ServiceViewSet):
    """Public names that clients ask for, with price and availability per environment."""

    queryset = queries.models_everywhere()
    serializer_class = shapes.ModelSerializer
    filterset_class = ModelFilter
    read_roles = EVERYBODY

    def get_queryset(self) -> QuerySet[Model]:
        return queries.models_everywhere()

    def get_serializer_context(self) -> dict[str, Any]:
        """With the signs of all deployments, read when the first model is shown."""
        rows = Deployment.objects.select_related("environment")
        return {
            **super().get_serializer_context(),
            "signs": SimpleLazyObject(lambda: signs_of(rows)),
        }

    def add(self, actor: User, data: dict[str, Any]) -> Model:
        return services.model_create(actor=actor, **data)

    def change(self, actor: User, row: Model, data: dict[str, Any]) -> Model:
        return services.model_update(actor=actor, model=row, **data)

    def remove(self, actor: User, row: Model) -> None:
        services.model_delete(actor=actor, model=row)


class AliasViewSet(ServiceViewSet):
    """Names such as `default` that point to a model in one environment."""

    queryset = ModelAlias.objects.select_related("environment", "model")
    serializer_class = shapes.AliasSerializer
    filterset_class = EnvironmentFilter
    pagination_class = ByName
    read_roles = EVERYBODY

    def add(self, actor: User, data: dict[str, Any]) -> ModelAlias:
        return services.alias_create(actor=actor, **data)

    def change(self, actor: User, row: ModelAlias, data: dict[str, Any]) -> ModelAlias:
        return services.alias_update(actor=actor, alias=row, model=data.get("model", row.model))

    def remove(self, actor: User, row: ModelAlias) -> None:
        services.alias_delete(actor=actor, alias=row)


class DeploymentFilter(CredentialFilter):
    model = filters.CharFilter(field_name="model__name", label="Model's name")
    credential = filters.UUIDFilter(field_name="credential_id")


@extend_schema_view(
    test=extend_schema(
        summary="Make one real call",
        description="Takes seconds. The provider's failure is a result, not an error status.",
        request=None,
        responses={200: shapes.TestResultSerializer},
    )
)
class DeploymentViewSet(ServiceViewSet):
    """A provider's model behind one credential, serving one public model."""

    queryset = queries.deployments_everywhere()
    serializer_class = shapes.DeploymentSerializer
    filterset_class = DeploymentFilter

    def get_queryset(self) -> QuerySet[Deployment]:
        return queries.deployments_everywhere()

    def add(self, actor: User, data: dict[str, Any]) -> Deployment:
        return services.deployment_create(actor=actor, **_with_price(data))

    def change(self, actor: User, row: Deployment, data: dict[str, Any]) -> Deployment:
        return services.deployment_update(actor=actor, deployment=row, **_with_price(data))

    def remove(self, actor: User, row: Deployment) -> None:
        services.deployment_delete(actor=actor, deployment=row)

    @action(detail=True, methods=["post"], filterset_class=None, pagination_class=None)
    def test(self, request: Request, pk: str) -> Response:
        deployment = self.get_object()
        return Response(services.connection_test(deployment=deployment, actor=self.actor))


def _with_price(data: dict[str, Any]) -> dict[str, Any]:
    if "price" in data:
        price = data.pop("price") or {"source": "none"}
        data |= {"price_source": price["source"], "price_units": price.get("units")}
    return data


class ChainFilter(EnvironmentFilter):
    model = filters.CharFilter(field_name="model__name", label="Model's name")
    kind = filters.ChoiceFilter(choices=FallbackChain.Kind.choices)


class ChainViewSet(ServiceViewSet):
    """Which models are tried, in order, when a model fails in a certain way."""

    queryset = FallbackChain.objects.select_related("environment", "model").prefetch_related(
        "steps__model"
    )
    serializer_class = shapes.ChainSerializer
    filterset_class = ChainFilter
    pagination_class = ById
    read_roles = EVERYBODY

    def add(self, actor: User, data: dict[str, Any]) -> FallbackChain:
        return services.chain_create(actor=actor, **data)

    def change(self, actor: User, row: FallbackChain, data: dict[str, Any]) -> FallbackChain:
        targets = data.get("targets")
        if targets is None:
            return row
        return services.chain_update(actor=actor, chain=row, targets=targets)

    def remove(self, actor: User, row: FallbackChain) -> None:
        services.chain_delete(actor=actor, chain=row)
