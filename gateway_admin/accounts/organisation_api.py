"""REST API of the organisation: its name, zone and calendar."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from gateway_admin.accounts import services
from gateway_admin.accounts.models import Organisation, User


class OrganisationSerializer(serializers.ModelSerializer[Organisation]):
    week_start = serializers.IntegerField(help_text="1 Monday to 7 Sunday.")
    fiscal_year_month = serializers.IntegerField(help_text="First month of a year, 1 to 12.")

    class Meta:
        model = Organisation
        fields = ["name", "time_zone", "week_start", "fiscal_year_month"]


class OrganisationView(APIView):
    """What this installation is called, and how it cuts days, weeks and years."""

    @extend_schema(tags=["organisation"], responses=OrganisationSerializer)
    def get(self, request: Request) -> Response:
        """Show the organisation."""
        return Response(OrganisationSerializer(Organisation.objects.get()).data)

    @extend_schema(
        tags=["organisation"],
        request=OrganisationSerializer(partial=True),
        responses=OrganisationSerializer,
    )
    def patch(self, request: Request) -> Response:
        """Change name, zone or calendar (administrators); what is left out stays."""
        assert isinstance(request.user, User)  # RolePermission lets nobody else through
        organisation = Organisation.objects.get()
        serializer = OrganisationSerializer(data=request.data, partial=True)
        serializer.is_valid(raise_exception=True)
        kept: dict[str, Any] = OrganisationSerializer(organisation).data
        organisation = services.organisation_update(
            actor=request.user, **{**kept, **serializer.validated_data}
        )
        return Response(OrganisationSerializer(organisation).data)
