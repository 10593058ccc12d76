"""REST API of budgets, limits, blocks, customers and purges: services and rules of the pages."""

from typing import Any, TypeVar
from uuid import UUID

from django.db import models
from django.db.models import QuerySet
from django.http import Http404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import status, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from gateway_admin.accounts.models import User
from gateway_admin.accounts.roles import Role
from gateway_admin.catalog.models import Environment
from gateway_admin.keys import block_services, cache_services, rights
from gateway_admin.keys import rule_serializers as shapes
from gateway_admin.keys.balances import balances_of
from gateway_admin.keys.budget_services import (
    budget_create,
    budget_delete,
    budget_update,
    override_grant,
    override_revoke,
)
from gateway_admin.keys.headroom import headroom_of
from gateway_admin.keys.limit_services import limit_delete, limit_set
from gateway_admin.keys.models import Block, Budget, Customer, RateLimit, Scope, Team
from gateway_admin.keys.rules import RELATED
from gateway_admin.keys.shares import shares_of
from gateway_admin.keys.subject_finder import find_subject
from gateway_admin.keys.subjects import subject_of
from gateway_admin.lib.errors import Conflict, InvalidInput

Row = TypeVar("Row", bound=models.Model)
ENVIRONMENT = OpenApiParameter("environment", OpenApiTypes.STR, description="Slug.")
SCOPE = OpenApiParameter("scope", OpenApiTypes.STR, enum=Scope.values)
EVERY_ROLE = tuple(Role)


def actor_of(request: Request) -> User:
    assert isinstance(request.user, User)  # RolePermission lets nobody else through
    return request.user


def validated(serializer: Any) -> dict[str, Any]:
    serializer.is_valid(raise_exception=True)
    values: dict[str, Any] = serializer.validated_data
    return values


def environment_named(slug: str) -> Environment:
    environment = Environment.objects.filter(slug=slug).first()
    if environment is None:
        raise InvalidInput("No such environment.", field="environment")
    return environment


def one_of(rows: QuerySet[Row], pk: UUID | str, what: str) -> Row:
    """The row, or 404 in words."""
    try:
        found = rows.filter(pk=UUID(str(pk))).first()
    except ValueError:
        found = None
    if found is None:
        raise Http404(f"No such {what}.")
    return found


def _asked(rows: QuerySet[Row], request: Request) -> QuerySet[Row]:
    given = request.query_params
    if environment := given.get("environment"):
        rows = rows.filter(environment__slug=environment)
    if scope := given.get("scope"):
        rows = rows.filter(scope=scope)
    return rows


@extend_schema(tags=["budgets"])
class BudgetViewSet(viewsets.GenericViewSet[Budget]):
    """How much may be spent. Every write is in force on all replicas within about a second."""

    queryset = Budget.objects.all()
    serializer_class = shapes.BudgetSerializer
    write_roles = EVERY_ROLE  # owners of teams set budgets of the teams' keys

    @extend_schema(parameters=[ENVIRONMENT, SCOPE])
    def list(self, request: Request) -> Response:
        """List budgets that you may see with their balances, newest first."""
        budgets = _asked(rights.visible_budgets(actor_of(request)), request)
        page = self.paginate_queryset(budgets.select_related(*RELATED)) or []
        return self.get_paginated_response(_budgets(page))

    def retrieve(self, request: Request, pk: UUID) -> Response:
        """Show a budget with its balance."""
        return Response(_budgets([self._seen(request, pk)])[0])

    @extend_schema(request=shapes.BudgetCreateSerializer, responses={201: shapes.BudgetSerializer})
    def create(self, request: Request) -> Response:
        """Set a budget. What was spent earlier in the running period counts."""
        values = validated(shapes.BudgetCreateSerializer(data=request.data))
        subject = find_subject(
            actor=actor_of(request),
            environment=environment_named(values.pop("environment")),
            scope=values.pop("scope"),
            name=values.pop("subject", ""),
        )
        budget = budget_create(actor=actor_of(request), subject=subject, **values)
        return Response(_budgets([budget])[0], status.HTTP_201_CREATED)

    @extend_schema(request=shapes.BudgetUpdateSerializer)
    def partial_update(self, request: Request, pk: UUID) -> Response:
        """Change amount, period, thresholds or name; what is left out stays."""
        budget = self._seen(request, pk)
        values = validated(shapes.BudgetUpdateSerializer(data=request.data, partial=True))
        fields = ("name", "limit_usd", "period", "rolling_hours", "soft_percent")
        kept = {field: getattr(budget, field) for field in fields}
        budget = budget_update(actor=actor_of(request), budget=budget, **{**kept, **values})
        return Response(_budgets([budget])[0])

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: UUID) -> Response:
        """Lift a budget."""
        budget_delete(actor=actor_of(request), budget=self._seen(request, pk))
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(responses=shapes.BalanceSerializer(many=True), filters=False)
    @action(detail=True, methods=["get"], pagination_class=None)
    def balances(self, request: Request, pk: UUID) -> Response:
        """Show where each subject of a default budget stands, or the one balance of another."""
        budget = self._seen(request, pk)
        if budget.is_default:
            found = shares_of(budget, actor_of(request)).balances
        else:
            found = balances_of([(budget, subject_of(budget))])
        return Response(shapes.BalanceSerializer(found, many=True).data)

    @extend_schema(responses=shapes.OverrideSerializer(many=True), filters=False)
    @action(detail=True, methods=["get"], pagination_class=None)
    def overrides(self, request: Request, pk: UUID) -> Response:
        """List the overrides of a budget, newest first."""
        rows = self._seen(request, pk).overrides.select_related("granted_by")[:100]
        return Response(shapes.OverrideSerializer(rows, many=True).data)

    @extend_schema(
        request=shapes.OverrideWriteSerializer, responses={201: shapes.OverrideSerializer}
    )
    @overrides.mapping.post
    def grant_override(self, request: Request, pk: UUID) -> Response:
        """Put another limit in the budget's place until a moment (administrators, finance)."""
        budget = self._seen(request, pk)
        values = validated(shapes.OverrideWriteSerializer(data=request.data))
        override = override_grant(actor=actor_of(request), budget=budget, **values)
        return Response(shapes.OverrideSerializer(override).data, status.HTTP_201_CREATED)

    @extend_schema(request=None, responses=shapes.OverrideSerializer)
    @action(detail=True, methods=["post"], url_path="overrides/end")
    def end_override(self, request: Request, pk: UUID) -> Response:
        """End the override in force; the budget's own limit holds again."""
        override = self._seen(request, pk).overrides.filter(revoked_at=None).first()
        if override is None:
            raise Conflict("No override is in force.")
        override = override_revoke(actor=actor_of(request), override=override)
        return Response(shapes.OverrideSerializer(override).data)

    @staticmethod
    def _seen(request: Request, pk: UUID) -> Budget:
        rows = rights.visible_budgets(actor_of(request)).select_related(*RELATED)
        return one_of(rows, pk, "budget")


def _budgets(budgets: Any) -> Any:
    own = [(budget, subject_of(budget)) for budget in budgets if not budget.is_default]
    balances = {balance.budget.pk: balance for balance in balances_of(own)}
    return shapes.BudgetSerializer(budgets, many=True, context={"balances": balances}).data


@extend_schema(tags=["limits"])
class LimitViewSet(viewsets.GenericViewSet[RateLimit]):
    """How fast calls may come. Every write is in force on all replicas within about a second."""

    queryset = RateLimit.objects.all()
    serializer_class = shapes.LimitSerializer
    write_roles = (Role.ADMIN, Role.DEVELOPER)  # owners of teams set limits of the teams' keys

    @extend_schema(parameters=[ENVIRONMENT, SCOPE])
    def list(self, request: Request) -> Response:
        """List limits that you may see with their present use, newest first."""
        limits = _asked(rights.visible_limits(actor_of(request)), request)
        page = self.paginate_queryset(limits.select_related(*RELATED)) or []
        return self.get_paginated_response(_limits(page))

    def retrieve(self, request: Request, pk: UUID) -> Response:
        """Show a limit with its present use."""
        return Response(_limits([self._seen(request, pk)])[0])

    @extend_schema(request=shapes.LimitWriteSerializer, responses={201: shapes.LimitSerializer})
    def create(self, request: Request) -> Response:
        """Set a limit; it takes the place of the one the subject has for this model."""
        values = validated(shapes.LimitWriteSerializer(data=request.data))
        subject = find_subject(
            actor=actor_of(request),
            environment=environment_named(values["environment"]),
            scope=values["scope"],
            name=values.get("subject", ""),
        )
        limit = limit_set(
            actor=actor_of(request),
            subject=subject,
            model=values.get("model", ""),
            rpm=values.get("rpm"),
            tpm=values.get("tpm"),
            parallel=values.get("parallel"),
        )
        return Response(_limits([limit])[0], status.HTTP_201_CREATED)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: UUID) -> Response:
        """Lift a limit."""
        limit_delete(actor=actor_of(request), limit=self._seen(request, pk))
        return Response(status=status.HTTP_204_NO_CONTENT)

    @staticmethod
    def _seen(request: Request, pk: UUID) -> RateLimit:
        rows = rights.visible_limits(actor_of(request)).select_related(*RELATED)
        return one_of(rows, pk, "limit")


def _limits(limits: Any) -> Any:
    own = [(limit, subject_of(limit)) for limit in limits if not limit.is_default]
    found = {headroom.limit.pk: headroom for headroom in headroom_of(own)}
    return shapes.LimitSerializer(limits, many=True, context={"headroom": found}).data


@extend_schema(tags=["blocks"])
class BlockViewSet(viewsets.GenericViewSet[Block]):
    """Teams, people and customers whose calls are refused. Keys are blocked one by one."""

    queryset = Block.objects.all()
    serializer_class = shapes.BlockSerializer

    @extend_schema(parameters=[ENVIRONMENT, SCOPE])
    def list(self, request: Request) -> Response:
        """List blocks that you may see, newest first."""
        related = ("environment", "team", "user", "customer", "created_by")
        blocks = _asked(rights.visible_blocks(actor_of(request)), request)
        page = self.paginate_queryset(blocks.select_related(*related))
        return self.get_paginated_response(shapes.BlockSerializer(page, many=True).data)

    @extend_schema(request=shapes.BlockWriteSerializer, responses={201: shapes.BlockSerializer})
    def create(self, request: Request) -> Response:
        """Refuse all calls of a team, a person or a customer within a second."""
        values = validated(shapes.BlockWriteSerializer(data=request.data))
        slug = values.get("environment")
        if values["scope"] == Scope.CUSTOMER and not slug:
            raise InvalidInput("A customer is of one environment: say which.", field="environment")
        place = environment_named(slug) if slug else Environment.objects.first()
        assert place is not None  # migrations create three
        subject = find_subject(
            actor=actor_of(request),
            environment=place,
            scope=values["scope"],
            name=values["subject"],
        )
        if not isinstance(subject.target, Team | User | Customer):
            raise InvalidInput("Name one to block.", field="subject")
        block = block_services.subject_block(
            actor=actor_of(request),
            target=subject.target,
            reason=values["reason"],
            environment=place if slug else None,
        )
        return Response(shapes.BlockSerializer(block).data, status.HTTP_201_CREATED)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: UUID) -> Response:
        """Let the calls through again."""
        block = one_of(rights.visible_blocks(actor_of(request)), pk, "block")
        block_services.subject_unblock(actor=actor_of(request), block=block)
        return Response(status=status.HTTP_204_NO_CONTENT)


@extend_schema(tags=["customers"])
class CustomerViewSet(viewsets.GenericViewSet[Customer]):
    """Customers with a name or a rule of their own. Others call without being listed here."""

    queryset = Customer.objects.all()
    serializer_class = shapes.CustomerSerializer
    read_roles = write_roles = (Role.ADMIN, Role.FINANCE)

    @extend_schema(
        parameters=[ENVIRONMENT, OpenApiParameter("reference", OpenApiTypes.STR)],
    )
    def list(self, request: Request) -> Response:
        """List customers, newest first."""
        given = request.query_params
        customers = Customer.objects.select_related("environment")
        if environment := given.get("environment"):
            customers = customers.filter(environment__slug=environment)
        if reference := given.get("reference"):
            customers = customers.filter(reference=reference)
        page = self.paginate_queryset(customers)
        return self.get_paginated_response(shapes.CustomerSerializer(page, many=True).data)

    def retrieve(self, request: Request, pk: UUID) -> Response:
        """Show a customer."""
        return Response(shapes.CustomerSerializer(self._found(pk)).data)

    @extend_schema(
        request=shapes.CustomerCreateSerializer, responses={201: shapes.CustomerSerializer}
    )
    def create(self, request: Request) -> Response:
        """Name a customer, so that it can have rules of its own."""
        values = validated(shapes.CustomerCreateSerializer(data=request.data))
        environment = environment_named(values.pop("environment"))
        customer = block_services.customer_create(
            actor=actor_of(request), environment=environment, **values
        )
        return Response(shapes.CustomerSerializer(customer).data, status.HTTP_201_CREATED)

    @extend_schema(request=shapes.CustomerUpdateSerializer)
    def partial_update(self, request: Request, pk: UUID) -> Response:
        """Rename a customer; the reference stays."""
        values = validated(shapes.CustomerUpdateSerializer(data=request.data))
        customer = block_services.customer_update(
            actor=actor_of(request), customer=self._found(pk), name=values["name"]
        )
        return Response(shapes.CustomerSerializer(customer).data)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: UUID) -> Response:
        """Forget a customer that no rule speaks of; its usage stays."""
        block_services.customer_delete(actor=actor_of(request), customer=self._found(pk))
        return Response(status=status.HTTP_204_NO_CONTENT)

    @staticmethod
    def _found(pk: UUID) -> Customer:
        return one_of(Customer.objects.select_related("environment"), pk, "customer")


@extend_schema(tags=["cache"])
class CacheViewSet(viewsets.ViewSet):
    """Kept answers. Those of a key or a team are purged under keys and teams."""

    @extend_schema(request=shapes.PurgeSerializer, responses={204: None})
    @action(detail=False, methods=["post"])
    def purge(self, request: Request) -> Response:
        """Never give a kept answer of an environment again (administrators)."""
        values = validated(shapes.PurgeSerializer(data=request.data))
        cache_services.cache_purge_environment(
            actor=actor_of(request), environment=environment_named(values["environment"])
        )
        return Response(status=status.HTTP_204_NO_CONTENT)
