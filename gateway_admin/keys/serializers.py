"""Shapes of teams, members and virtual keys in the REST API."""

from typing import Any

from rest_framework import serializers

from gateway_admin.keys.models import Membership, Team, VirtualKey


class TeamSerializer(serializers.ModelSerializer[Team]):
    class Meta:
        model = Team
        fields = ["id", "slug", "name", "description", "created_at"]


class TeamCreateSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=80)
    slug = serializers.SlugField(
        max_length=39, required=False, help_text="Follows from the name when left out; it stays."
    )
    description = serializers.CharField(max_length=300, required=False, allow_blank=True)
    owner = serializers.EmailField(
        required=False, help_text="E-mail of the first owner of the team."
    )


class TeamUpdateSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=80, required=False)
    description = serializers.CharField(max_length=300, required=False, allow_blank=True)


class MemberSerializer(serializers.ModelSerializer[Membership]):
    email = serializers.EmailField(source="user.email")
    name = serializers.CharField(source="user.name")

    class Meta:
        model = Membership
        fields = ["id", "email", "name", "role", "created_at"]


class MemberCreateSerializer(serializers.Serializer[Any]):
    email = serializers.EmailField()
    role = serializers.ChoiceField(Membership.Role.choices, default=Membership.Role.MEMBER)


class MemberUpdateSerializer(serializers.Serializer[Any]):
    role = serializers.ChoiceField(Membership.Role.choices)


class KeySerializer(serializers.ModelSerializer[VirtualKey]):
    """A key without its secret, which nobody can read again."""

    environment = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    owner = serializers.EmailField(source="owner.email", default=None, allow_null=True)
    team = serializers.SlugField(source="team.slug", default=None, allow_null=True)
    state = serializers.ChoiceField(
        source="shown_state", choices=["active", "expired", "blocked", "revoked"]
    )
    allowed_models = serializers.ListField(
        child=serializers.CharField(),
        allow_null=True,
        help_text="Names of models and aliases; null: every model of the environment.",
    )
    tags = serializers.DictField(child=serializers.CharField())

    class Meta:
        model = VirtualKey
        fields = [
            "id",
            "public_id",
            "name",
            "environment",
            "owner",
            "team",
            "allowed_models",
            "tags",
            "state",
            "reason",
            "expires_at",
            "cache",
            "cache_ttl_s",
            "max_output_tokens",
            "created_at",
            "revoked_at",
            "last_used_at",
        ]


class KeyCreatedSerializer(KeySerializer):
    key = serializers.CharField(help_text="The whole key. It is shown this one time.")

    class Meta(KeySerializer.Meta):
        fields = [*KeySerializer.Meta.fields, "key"]


class KeyWriteSerializer(serializers.Serializer[Any]):
    """What may be changed; in a PATCH, what is left out stays."""

    name = serializers.CharField(max_length=100)
    owner = serializers.EmailField(
        allow_null=True,
        required=False,
        help_text="E-mail. Left out: you. null: nobody, the key belongs to its team.",
    )
    team = serializers.SlugField(allow_null=True, required=False)
    allowed_models = serializers.ListField(
        child=serializers.CharField(max_length=120),
        allow_null=True,
        required=False,
        help_text="Names of models and aliases; null or left out: every model.",
    )
    expires_at = serializers.DateTimeField(allow_null=True, required=False)
    tags = serializers.DictField(child=serializers.CharField(allow_blank=True), required=False)
    cache = serializers.ChoiceField(
        VirtualKey.Cache.choices,
        required=False,
        help_text="Which answers may be kept; within the team alone.",
    )
    cache_ttl_s = serializers.IntegerField(
        required=False, allow_null=True, help_text="Null: as long as the environment says."
    )
    max_output_tokens = serializers.IntegerField(
        required=False,
        allow_null=True,
        help_text="Cap of requests that state none; null: the environment's.",
    )


class KeyCreateSerializer(KeyWriteSerializer):
    environment = serializers.SlugField()


class BlockSerializer(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=200, help_text="Callers are shown it.")
