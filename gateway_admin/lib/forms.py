"""What forms of all apps share."""

from collections.abc import Iterator
from contextlib import contextmanager

from django import forms

from gateway_admin.lib.errors import ServiceError


@contextmanager
def errors_shown_by(form: forms.BaseForm) -> Iterator[None]:
    """Put a service's error at the form's field, or above the form where it has none.

    `form.is_valid()` is False afterwards. What the caller does after success belongs behind
    that question, not into the block.
    """
    try:
        yield
    except ServiceError as error:
        form.add_error(error.field if error.field in form.fields else None, error.message)
