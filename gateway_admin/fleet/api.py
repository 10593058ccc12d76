"""REST API of publishing and of the fleet; administrators only, as the pages."""

from typing import Any

from django.db.models import OuterRef, QuerySet, Subquery
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django_filters import rest_framework as filters
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import mixins, status, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from gateway_admin.accounts.models import User
from gateway_admin.accounts.roles import Role
from gateway_admin.catalog.models import Environment
from gateway_admin.fleet import queries, services
from gateway_admin.fleet.models import Replica, Revision
from gateway_admin.fleet.serializers import (
    CommentSerializer,
    DraftSerializer,
    ReplicaSerializer,
    RevisionDetailSerializer,
    RevisionSerializer,
)
from gateway_admin.lib.api import KeysetPagination

ADMINS = (Role.ADMIN,)


class NewestRevisionFirst(KeysetPagination):
    ordering = "-id"


class OldestReplicaFirst(KeysetPagination):
    ordering = "first_seen_at"


class RevisionFilter(filters.FilterSet):  # type: ignore[misc]
    environment = filters.CharFilter("environment__slug", help_text="Slug of an environment.")

    class Meta:
        model = Revision
        fields = ["environment", "number", "digest"]


class ReplicaFilter(filters.FilterSet):  # type: ignore[misc]
    environment = filters.CharFilter("environment__slug", help_text="Slug of an environment.")

    class Meta:
        model = Replica
        fields = ["environment", "hostname"]


@extend_schema(tags=["revisions"])
class RevisionViewSet(
    mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Revision]
):
    """Published revisions, newest first. They never change."""

    queryset = Revision.objects.select_related("environment", "published_by")
    pagination_class = NewestRevisionFirst
    filterset_class = RevisionFilter
    read_roles = write_roles = ADMINS

    def get_queryset(self) -> QuerySet[Revision]:
        rows = super().get_queryset()
        return rows.defer("document") if self.action == "list" else rows

    def get_serializer_class(self) -> type[RevisionSerializer]:
        return RevisionDetailSerializer if self.action == "retrieve" else RevisionSerializer

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """A revision with its document and what it changed."""
        revision = self.get_object()
        revision.changes = queries.changes_of(revision)  # type: ignore[attr-defined]
        return Response(RevisionDetailSerializer(revision).data)

    @extend_schema(request=CommentSerializer, responses={201: RevisionSerializer})
    @action(detail=True, methods=["post"])
    def rollback(self, request: Request, pk: str) -> Response:
        """Write this revision back to the draft and publish it under a new number."""
        published = services.revision_rollback(
            revision=self.get_object(), actor=_actor(request), comment=_comment(request)
        )
        return Response(RevisionSerializer(published).data, status.HTTP_201_CREATED)


@extend_schema(tags=["replicas"])
class ReplicaViewSet(
    mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Replica]
):
    """Replicas and where each of their workers stands."""

    queryset = Replica.objects.all()
    serializer_class = ReplicaSerializer
    pagination_class = OldestReplicaFirst
    filterset_class = ReplicaFilter
    read_roles = write_roles = ADMINS

    def get_queryset(self) -> QuerySet[Replica]:
        newest = Revision.objects.filter(environment=OuterRef("environment")).order_by("-number")
        return (
            Replica.objects.select_related("environment")
            .prefetch_related("workers")
            .annotate(desired_revision=Subquery(newest.values("number")[:1]))
        )

    def get_serializer_context(self) -> dict[str, Any]:
        return {**super().get_serializer_context(), "now": timezone.now()}


class DraftView(APIView):
    read_roles = write_roles = ADMINS

    @extend_schema(tags=["revisions"], responses=DraftSerializer)
    def get(self, request: Request, slug: str) -> Response:
        """What a publish would change now, and what of the draft would not be served."""
        state = queries.draft_state(get_object_or_404(Environment, slug=slug))
        return Response(
            DraftSerializer(
                {
                    "active_revision": state.active.number if state.active else None,
                    "digest": state.digest,
                    "changes": state.changes,
                    "warnings": state.draft.warnings,
                }
            ).data
        )


class PublishView(APIView):
    read_roles = write_roles = ADMINS

    @extend_schema(
        tags=["revisions"],
        request=CommentSerializer,
        responses={
            201: RevisionSerializer,
            200: OpenApiResponse(RevisionSerializer, "Nothing changed: the active revision."),
        },
    )
    def post(self, request: Request, slug: str) -> Response:
        """Publish the draft. An unchanged draft answers 200 with the active revision."""
        environment = get_object_or_404(Environment, slug=slug)
        before = queries.active_revision(environment)
        revision = services.revision_publish(
            environment=environment, actor=_actor(request), comment=_comment(request)
        )
        is_new = before is None or revision.number > before.number
        code = status.HTTP_201_CREATED if is_new else status.HTTP_200_OK
        return Response(RevisionSerializer(revision).data, code)


def _actor(request: Request) -> User:
    assert isinstance(request.user, User)  # RolePermission lets nobody else through
    return request.user


def _comment(request: Request) -> str:
    serializer = CommentSerializer(data=request.data)
    serializer.is_valid(raise_exception=True)
    comment: str = serializer.validated_data["comment"]
    return comment
