"""What all API endpoints share: one error shape and keyset paging."""

from typing import Any

from django.db import InterfaceError, OperationalError
from drf_standardized_errors.handler import ExceptionHandler
from drf_standardized_errors.handler import exception_handler as standardized
from rest_framework import exceptions, status
from rest_framework.pagination import CursorPagination
from rest_framework.response import Response

from gateway_admin.lib.errors import Conflict, InvalidInput


class ConflictResponse(exceptions.APIException):
    status_code = status.HTTP_409_CONFLICT
    default_code = "conflict"


class KeysetPagination(CursorPagination):
    """`?cursor=…&page_size=…`; pages stay right while rows are added."""

    ordering = "-created_at"
    page_size_query_param = "page_size"
    max_page_size = 500


class ServiceErrorHandler(ExceptionHandler):  # type: ignore[misc]
    """Translate the services' errors to the API's."""

    def convert_known_exceptions(self, exc: Exception) -> Exception:
        if isinstance(exc, InvalidInput):
            detail: Any = {exc.field: [exc.message]} if exc.field else [exc.message]
            return exceptions.ValidationError(detail, code=exc.code)
        if isinstance(exc, Conflict):
            return ConflictResponse(exc.message)
        converted: Exception = super().convert_known_exceptions(exc)
        return converted


def exception_handler(exc: Exception, context: dict[str, Any]) -> Response | None:
    """`{"type", "errors": [{"code", "detail", "attr"}]}`; wrong input is 422.

    That the database is away is no error of the API: the middleware answers 503 then.
    """
    if isinstance(exc, OperationalError | InterfaceError):
        return None
    response: Response | None = standardized(exc, context)
    is_validation = response is not None and response.data.get("type") == "validation_error"
    if response is not None and is_validation:
        response.status_code = status.HTTP_422_UNPROCESSABLE_ENTITY
    return response
