"""Shapes of the REST API for revisions and replicas. Nothing here is secret."""

from typing import Any

from rest_framework import serializers

from gateway_admin.fleet.models import Replica, ReplicaWorker, Revision
from gateway_admin.fleet.presentation import ReplicaView
from gateway_admin.fleet.services import COMMENT_LENGTH


class ChangeSerializer(serializers.Serializer[Any]):
    """One difference, in words."""

    action = serializers.ChoiceField(choices=["added", "removed", "changed"])
    thing = serializers.ChoiceField(
        choices=["environment", "model", "alias", "chain", "deployment", "credential"]
    )
    id = serializers.CharField()
    name = serializers.CharField()
    field = serializers.CharField(help_text="Empty when the whole thing was added or removed.")
    before = serializers.CharField(allow_null=True)
    after = serializers.CharField(allow_null=True)
    text = serializers.CharField(help_text="The change as one line.")


class WarningSerializer(serializers.Serializer[Any]):
    """Something of the draft that is not served as written."""

    thing = serializers.CharField()
    id = serializers.CharField()
    name = serializers.CharField()
    text = serializers.CharField()


class RevisionSerializer(serializers.ModelSerializer[Revision]):
    environment = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    published_by = serializers.EmailField(
        source="published_by.email", default=None, read_only=True, allow_null=True
    )

    class Meta:
        model = Revision
        fields = [
            "id",
            "environment",
            "number",
            "digest",
            "comment",
            "change_count",
            "published_by",
            "published_at",
            "rolled_back_to",
        ]
        read_only_fields = fields


class RevisionDetailSerializer(RevisionSerializer):
    changes = ChangeSerializer(many=True, help_text="Against the revision before it.")

    class Meta(RevisionSerializer.Meta):
        fields = [*RevisionSerializer.Meta.fields, "changes", "document"]
        read_only_fields = fields


class DraftSerializer(serializers.Serializer[Any]):
    """What a publish would do now."""

    active_revision = serializers.IntegerField(allow_null=True)
    digest = serializers.CharField()
    changes = ChangeSerializer(many=True)
    warnings = WarningSerializer(many=True)


class CommentSerializer(serializers.Serializer[Any]):
    comment = serializers.CharField(
        required=False, default="", allow_blank=True, max_length=COMMENT_LENGTH
    )


class WorkerSerializer(serializers.ModelSerializer[ReplicaWorker]):
    class Meta:
        model = ReplicaWorker
        fields = [
            "slot",
            "pid",
            "started_at",
            "last_seen_at",
            "applied_revision",
            "applied_digest",
            "acknowledged_at",
            "rejected_revision",
            "rejected_error",
            "rejected_deployment",
            "policy_version",
            "spool_events",
            "spool_bytes",
            "dropped_events",
            "healthy",
            "reasons",
            "unwell_since",
            "counters",
            "counters_since",
        ]
        extra_kwargs = {
            "counters": {
                "help_text": "How budgets and limits are counted: `shared`, `local` (Redis is "
                "away), `unbuilt`, or empty where the worker does not say."
            }
        }
        read_only_fields = fields


class ReplicaSerializer(serializers.ModelSerializer[Replica]):
    environment = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    state = serializers.SerializerMethodField()
    desired_revision = serializers.IntegerField(read_only=True, allow_null=True)
    workers = WorkerSerializer(many=True, read_only=True)

    class Meta:
        model = Replica
        fields = [
            "id",
            "environment",
            "hostname",
            "version",
            "first_seen_at",
            "state",
            "desired_revision",
            "workers",
        ]
        read_only_fields = fields

    def get_state(self, replica: Replica) -> str:
        """healthy, degraded, behind, rejected, late or silent."""
        desired: int | None = replica.desired_revision  # type: ignore[attr-defined]
        return ReplicaView(replica, list(replica.workers.all()), desired, self.context["now"]).state
