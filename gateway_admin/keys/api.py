"""REST API of teams, members and virtual keys: the services and rules of the pages."""

from dataclasses import replace
from typing import Any
from uuid import UUID

from django.http import Http404
from django.shortcuts import get_object_or_404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import status, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from gateway_admin.accounts.models import User
from gateway_admin.accounts.roles import Role, is_admin
from gateway_admin.catalog.models import Environment
from gateway_admin.keys import queries, serializers, services, team_services
from gateway_admin.keys.cache_services import cache_purge_key, cache_purge_team
from gateway_admin.keys.models import Membership, Team, VirtualKey
from gateway_admin.keys.rule_api import environment_named
from gateway_admin.keys.rule_pages import standing
from gateway_admin.keys.rule_serializers import StandingSerializer
from gateway_admin.keys.rules import path_of
from gateway_admin.keys.services import AnswerRules, answer_rules
from gateway_admin.keys.subjects import subject_for
from gateway_admin.lib.errors import InvalidInput

NOBODY = "Nobody of this e-mail can be chosen here."


def _actor(request: Request) -> User:
    assert isinstance(request.user, User)  # RolePermission lets nobody else through
    return request.user


def _validated(serializer: Any) -> dict[str, Any]:
    serializer.is_valid(raise_exception=True)
    values: dict[str, Any] = serializer.validated_data
    return values


def _person(email: str | None, people: Any, field: str) -> User | None:
    if email is None:
        return None
    person: User | None = people.filter(email__iexact=email).first()
    if person is None:
        raise InvalidInput(NOBODY, field=field)
    return person


def _answers(values: dict[str, Any], kept: AnswerRules) -> AnswerRules:
    """What a request says of a key's answers; what it leaves out is kept."""
    names = ("cache", "cache_ttl_s", "max_output_tokens")
    return replace(kept, **{name: values[name] for name in names if name in values})


@extend_schema(tags=["teams"])
class TeamViewSet(viewsets.GenericViewSet[Team]):
    """Teams share keys and spend. Administrators add them; their owners look after them."""

    queryset = Team.objects.all()
    serializer_class = serializers.TeamSerializer
    lookup_field = "slug"
    write_roles = (Role.ADMIN, Role.DEVELOPER)

    def list(self, request: Request) -> Response:
        """List teams: all for administrators and finance, else those you belong to."""
        page = self.paginate_queryset(queries.visible_teams(_actor(request)))
        return self.get_paginated_response(serializers.TeamSerializer(page, many=True).data)

    def retrieve(self, request: Request, slug: str) -> Response:
        """Show a team."""
        team = queries.team_to_see(_actor(request), slug)
        return Response(serializers.TeamSerializer(team).data)

    @extend_schema(
        request=serializers.TeamCreateSerializer, responses={201: serializers.TeamSerializer}
    )
    def create(self, request: Request) -> Response:
        """Add a team (administrators)."""
        self._administrators_only(request)
        values = _validated(serializers.TeamCreateSerializer(data=request.data))
        people = User.objects.filter(is_active=True)
        owner = _person(values.pop("owner", None), people, "owner")
        team = team_services.team_create(actor=_actor(request), owner=owner, **values)
        return Response(serializers.TeamSerializer(team).data, status.HTTP_201_CREATED)

    @extend_schema(request=serializers.TeamUpdateSerializer)
    def partial_update(self, request: Request, slug: str) -> Response:
        """Rename or describe a team (its owners, administrators)."""
        team = queries.team_to_manage(_actor(request), slug)
        values = _validated(serializers.TeamUpdateSerializer(data=request.data))
        team = team_services.team_update(
            actor=_actor(request),
            team=team,
            name=values.get("name", team.name),
            description=values.get("description", team.description),
        )
        return Response(serializers.TeamSerializer(team).data)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, slug: str) -> Response:
        """Delete a team that has no keys (administrators)."""
        self._administrators_only(request)
        team = queries.team_to_manage(_actor(request), slug)
        team_services.team_delete(actor=_actor(request), team=team)
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(responses=serializers.MemberSerializer(many=True), filters=False)
    @action(detail=True, methods=["get"], pagination_class=None)
    def members(self, request: Request, slug: str) -> Response:
        """List the members of a team, owners first."""
        members = queries.team_members(queries.team_to_see(_actor(request), slug))
        return Response(serializers.MemberSerializer(members, many=True).data)

    @extend_schema(
        request=serializers.MemberCreateSerializer, responses={201: serializers.MemberSerializer}
    )
    @members.mapping.post
    def add_member(self, request: Request, slug: str) -> Response:
        """Add a person to a team (its owners, administrators)."""
        team = queries.team_to_manage(_actor(request), slug)
        values = _validated(serializers.MemberCreateSerializer(data=request.data))
        user = _person(values["email"], User.objects.filter(is_active=True), "email")
        assert user is not None
        membership = team_services.member_add(
            actor=_actor(request), team=team, user=user, role=values["role"]
        )
        return Response(serializers.MemberSerializer(membership).data, status.HTTP_201_CREATED)

    @extend_schema(
        request=serializers.MemberUpdateSerializer, responses=serializers.MemberSerializer
    )
    @action(detail=True, methods=["patch"], url_path=r"members/(?P<member_id>\d+)")
    def member(self, request: Request, slug: str, member_id: str) -> Response:
        """Make a member an owner, or an owner a member."""
        membership = self._membership(request, slug, member_id)
        values = _validated(serializers.MemberUpdateSerializer(data=request.data))
        membership = team_services.member_change(
            actor=_actor(request), membership=membership, role=values["role"]
        )
        return Response(serializers.MemberSerializer(membership).data)

    @extend_schema(responses={204: None})
    @member.mapping.delete
    def remove_member(self, request: Request, slug: str, member_id: str) -> Response:
        """Take a person out of a team; their keys there stay with the team."""
        membership = self._membership(request, slug, member_id)
        team_services.member_remove(actor=_actor(request), membership=membership)
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(
        parameters=[
            OpenApiParameter("environment", OpenApiTypes.STR, required=True, description="Slug.")
        ],
        responses=StandingSerializer,
        filters=False,
    )
    @action(detail=True, methods=["get"])
    def standing(self, request: Request, slug: str) -> Response:
        """Show what remains for a team in an environment, and above it."""
        team = queries.team_to_see(_actor(request), slug)
        environment = environment_named(request.query_params.get("environment", ""))
        subjects = [subject_for(team, environment), subject_for(environment, environment)]
        return Response(standing(_actor(request), subjects))

    @extend_schema(request=None, responses={204: None})
    @action(detail=True, methods=["post"], url_path="purge-cache")
    def purge_cache(self, request: Request, slug: str) -> Response:
        """Never give a kept answer to the team's keys again."""
        team = queries.team_to_manage(_actor(request), slug)
        cache_purge_team(actor=_actor(request), team=team)
        return Response(status=status.HTTP_204_NO_CONTENT)

    def _membership(self, request: Request, slug: str, member_id: str) -> Membership:
        team = queries.team_to_manage(_actor(request), slug)
        return get_object_or_404(Membership, pk=member_id, team=team)

    def _administrators_only(self, request: Request) -> None:
        if not is_admin(_actor(request)):
            self.permission_denied(request, message="Only administrators add and delete teams.")


KEY_FILTERS = [
    OpenApiParameter("environment", OpenApiTypes.STR, description="Slug of an environment."),
    OpenApiParameter("team", OpenApiTypes.STR, description="Slug of a team."),
    OpenApiParameter("owner", OpenApiTypes.EMAIL, description="E-mail of the owner."),
    OpenApiParameter("model", OpenApiTypes.STR, description="A name that the key may call."),
    OpenApiParameter("q", OpenApiTypes.STR, description="Part of the name, public id or owner."),
    OpenApiParameter(
        "state",
        OpenApiTypes.STR,
        enum=["active", "expired", "blocked", "revoked", "all"],
        description="Left out: all but revoked ones.",
    ),
]


@extend_schema(tags=["keys"])
class KeyViewSet(viewsets.GenericViewSet[VirtualKey]):
    """Virtual keys. Every write is in force on all replicas within about a second."""

    queryset = VirtualKey.objects.all()
    serializer_class = serializers.KeySerializer
    write_roles = (Role.ADMIN, Role.DEVELOPER)

    @extend_schema(parameters=KEY_FILTERS)
    def list(self, request: Request) -> Response:
        """List keys that you may see, newest first."""
        page = self.paginate_queryset(queries.with_relations(self._filtered(request)))
        return self.get_paginated_response(serializers.KeySerializer(page, many=True).data)

    def _filtered(self, request: Request) -> Any:
        given = request.query_params
        keys = queries.keys_in_state(queries.visible_keys(_actor(request)), given.get("state", ""))
        if environment := given.get("environment"):
            keys = keys.filter(environment__slug=environment)
        if team := given.get("team"):
            keys = keys.filter(team__slug=team)
        if owner := given.get("owner"):
            keys = keys.filter(owner__email__iexact=owner)
        if model := given.get("model"):
            keys = queries.keys_allowing(keys, model)
        if text := given.get("q"):
            keys = queries.keys_matching(keys, text)
        return keys

    def retrieve(self, request: Request, pk: UUID) -> Response:
        """Show a key; never its secret."""
        return self._answer(queries.key_to_see(_actor(request), self._id(pk)))

    @extend_schema(
        request=serializers.KeyCreateSerializer, responses={201: serializers.KeyCreatedSerializer}
    )
    def create(self, request: Request) -> Response:
        """Issue a key. The answer holds the whole key this one time."""
        actor = _actor(request)
        values = _validated(serializers.KeyCreateSerializer(data=request.data))
        environment = Environment.objects.filter(slug=values["environment"]).first()
        if environment is None:
            raise InvalidInput("No such environment.", field="environment")
        key, text = services.key_create(
            actor=actor,
            environment=environment,
            name=values["name"],
            owner=self._owner(actor, values["owner"]) if "owner" in values else actor,
            team=self._team(actor, values.get("team")),
            allowed_models=values.get("allowed_models"),
            expires_at=values.get("expires_at"),
            tags=values.get("tags", {}),
            answers=_answers(values, AnswerRules()),
        )
        document = {**serializers.KeySerializer(key).data, "key": text}
        return Response(document, status.HTTP_201_CREATED, headers={"Cache-Control": "no-store"})

    @extend_schema(request=serializers.KeyWriteSerializer)
    def partial_update(self, request: Request, pk: UUID) -> Response:
        """Change a key; what is left out stays. The secret never changes."""
        actor = _actor(request)
        key = queries.key_to_manage(actor, self._id(pk))
        values = _validated(serializers.KeyWriteSerializer(data=request.data, partial=True))
        key = services.key_update(
            actor=actor,
            key=key,
            name=values.get("name", key.name),
            owner=self._owner(actor, values["owner"]) if "owner" in values else key.owner,
            team=self._team(actor, values["team"]) if "team" in values else key.team,
            allowed_models=values.get("allowed_models", key.allowed_models),
            expires_at=values.get("expires_at", key.expires_at),
            tags=values.get("tags", key.tags),
            answers=_answers(values, answer_rules(key)),
        )
        return self._answer(key)

    @extend_schema(request=serializers.BlockSerializer)
    @action(detail=True, methods=["post"])
    def block(self, request: Request, pk: UUID) -> Response:
        """Refuse the key's calls until it is unblocked."""
        key = queries.key_to_manage(_actor(request), self._id(pk))
        values = _validated(serializers.BlockSerializer(data=request.data))
        return self._answer(
            services.key_block(actor=_actor(request), key=key, reason=values["reason"])
        )

    @extend_schema(request=None)
    @action(detail=True, methods=["post"])
    def unblock(self, request: Request, pk: UUID) -> Response:
        """Let a blocked key call again."""
        key = queries.key_to_manage(_actor(request), self._id(pk))
        return self._answer(services.key_unblock(actor=_actor(request), key=key))

    @extend_schema(request=None)
    @action(detail=True, methods=["post"])
    def revoke(self, request: Request, pk: UUID) -> Response:
        """End a key for good."""
        key = queries.key_to_manage(_actor(request), self._id(pk))
        return self._answer(services.key_revoke(actor=_actor(request), key=key))

    @extend_schema(responses=StandingSerializer)
    @action(detail=True, methods=["get"])
    def standing(self, request: Request, pk: UUID) -> Response:
        """Show what remains for a key: its own budgets and limits, and those above."""
        key = queries.key_to_see(_actor(request), self._id(pk))
        return Response(standing(_actor(request), path_of(key)))

    @extend_schema(request=None, responses={204: None})
    @action(detail=True, methods=["post"], url_path="purge-cache")
    def purge_cache(self, request: Request, pk: UUID) -> Response:
        """Never give a kept answer to this key again."""
        key = queries.key_to_manage(_actor(request), self._id(pk))
        cache_purge_key(actor=_actor(request), key=key)
        return Response(status=status.HTTP_204_NO_CONTENT)

    def _answer(self, key: VirtualKey) -> Response:
        return Response(serializers.KeySerializer(key).data)

    @staticmethod
    def _id(text: UUID | str) -> UUID:
        try:
            return UUID(str(text))
        except ValueError as error:
            raise Http404("No such key.") from error

    @staticmethod
    def _owner(actor: User, email: str | None) -> User | None:
        return _person(email, queries.possible_owners(actor), "owner")

    @staticmethod
    def _team(actor: User, slug: str | None) -> Team | None:
        if slug is None:
            return None
        team = queries.joined_teams(actor).filter(slug=slug).first()
        if team is None:
            raise InvalidInput("You can issue keys for no team of this name.", field="team")
        return team
