"""Errors that services raise and that every front door translates.

ServiceError            what was asked cannot be done; `field` names the input at fault
├── InvalidInput        a value is wrong (form: message at the field; API: 422)
└── Conflict            the state of things forbids it now (page: message; API: 409)
"""


class ServiceError(Exception):
    """`message` says what happened and what to do; `field` is an input's name or None."""

    code = "error"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class InvalidInput(ServiceError):
    code = "invalid"


class Conflict(ServiceError):
    code = "conflict"
