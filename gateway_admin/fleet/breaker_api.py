"""REST API of circuit breakers; administrators only, as the pages."""

from collections.abc import Sequence
from typing import Any, cast

from django.db.models import QuerySet
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from gateway_admin.accounts.models import User
from gateway_admin.accounts.roles import Role
from gateway_admin.catalog.models import Deployment
from gateway_admin.fleet.breakers import (
    REASON_LENGTH,
    breaker_of,
    breaker_order,
    breakers_of,
)
from gateway_admin.fleet.models import BreakerOrder, BreakerTransition
from gateway_admin.lib.api import KeysetPagination

ADMINS = (Role.ADMIN,)


class BreakerOrderSerializer(serializers.ModelSerializer[BreakerOrder]):
    environment = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    deployment = serializers.PrimaryKeyRelatedField[Any](read_only=True)
    actor = serializers.EmailField(source="actor.email", default=None, allow_null=True)

    class Meta:
        model = BreakerOrder
        fields = ["id", "environment", "deployment", "action", "reason", "actor", "at"]
        read_only_fields = fields


class BreakerTransitionSerializer(serializers.ModelSerializer[BreakerTransition]):
    environment = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    deployment = serializers.UUIDField(source="deployment_id", read_only=True)

    class Meta:
        model = BreakerTransition
        fields = [
            "id",
            "environment",
            "deployment",
            "generation",
            "state",
            "at",
            "reason",
            "replica",
        ]
        read_only_fields = fields


class BreakerSerializer(serializers.Serializer[Any]):
    """Where the breaker of one deployment stands."""

    deployment = serializers.UUIDField(source="deployment.pk")
    name = serializers.CharField(source="deployment.name")
    environment = serializers.CharField(source="deployment.environment.slug")
    state = serializers.ChoiceField(
        choices=["closed", "open", "half_open", "off"],
        help_text="`off`: the environment uses no circuit breakers.",
    )
    since = serializers.DateTimeField(
        source="current.start",
        default=None,
        allow_null=True,
        help_text="Null: closed since it was first published.",
    )
    reason = serializers.CharField(source="current.reason", default="")
    held_open = serializers.BooleanField(help_text="Opened by hand: it does not try by itself.")
    opened_24h = serializers.IntegerField(
        source="opened", help_text="How often it opened within the last 24 hours."
    )
    last_order = BreakerOrderSerializer(source="order", allow_null=True)


class OrderRequestSerializer(serializers.Serializer[Any]):
    action = serializers.ChoiceField(
        choices=BreakerOrder.Action.choices, help_text="`open` holds until another order."
    )
    reason = serializers.CharField(max_length=REASON_LENGTH)


class ByDeployment(KeysetPagination):
    ordering = ("name", "id")  # type: ignore[assignment]


class NewestFirst(KeysetPagination):
    ordering = "-id"


class BreakerFilter(filters.FilterSet):  # type: ignore[misc]
    environment = filters.CharFilter("environment__slug", help_text="Slug of an environment.")
    model = filters.CharFilter("model__name", help_text="Name of a model.")


class TransitionFilter(filters.FilterSet):  # type: ignore[misc]
    environment = filters.CharFilter("environment__slug", help_text="Slug of an environment.")
    deployment = filters.UUIDFilter("deployment_id", help_text="Id of a deployment.")
    state = filters.ChoiceFilter(choices=BreakerTransition._meta.get_field("state").choices)


class OrderFilter(filters.FilterSet):  # type: ignore[misc]
    environment = filters.CharFilter("environment__slug", help_text="Slug of an environment.")
    deployment = filters.UUIDFilter("deployment_id", help_text="Id of a deployment.")


@extend_schema(tags=["breakers"])
class BreakerViewSet(
    mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Deployment]
):
    """Circuit breakers of the enabled deployments, by the deployment's id."""

    queryset = Deployment.objects.filter(enabled=True).select_related("environment")
    serializer_class = BreakerSerializer
    pagination_class = ByDeployment
    filterset_class = BreakerFilter
    read_roles = write_roles = ADMINS

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        rows = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        found = breakers_of(cast(Sequence[Deployment], rows))
        return self.get_paginated_response(BreakerSerializer(found, many=True).data)

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return Response(BreakerSerializer(breaker_of(self.get_object())).data)

    @extend_schema(request=OrderRequestSerializer, responses={201: BreakerOrderSerializer})
    @action(detail=True, methods=["post"])
    def order(self, request: Request, pk: str) -> Response:
        """Tell the breaker, on all replicas, to open, close or reset."""
        asked = OrderRequestSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        assert isinstance(request.user, User)  # RolePermission lets nobody else through
        given = breaker_order(
            actor=request.user, deployment=self.get_object(), **asked.validated_data
        )
        return Response(BreakerOrderSerializer(given).data, status.HTTP_201_CREATED)


@extend_schema(tags=["breakers"])
class BreakerTransitionViewSet(mixins.ListModelMixin, viewsets.GenericViewSet[BreakerTransition]):
    """What breakers did in the last 30 days, newest first."""

    queryset: QuerySet[BreakerTransition] = BreakerTransition.objects.select_related("environment")
    serializer_class = BreakerTransitionSerializer
    pagination_class = NewestFirst
    filterset_class = TransitionFilter
    read_roles = write_roles = ADMINS


@extend_schema(tags=["breakers"])
class BreakerOrderViewSet(mixins.ListModelMixin, viewsets.GenericViewSet[BreakerOrder]):
    """What people ordered breakers to do, newest first."""

    queryset = BreakerOrder.objects.select_related("environment", "actor")
    serializer_class = BreakerOrderSerializer
    pagination_class = NewestFirst
    filterset_class = OrderFilter
    read_roles = write_roles = ADMINS
