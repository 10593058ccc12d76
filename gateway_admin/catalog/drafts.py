"""What every catalog write does beside its own rows: lock, check, save, audit, announce."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import IntegrityError, models, transaction

from gateway_admin.accounts.models import User
from gateway_admin.catalog.models import Environment
from gateway_admin.lib.errors import Conflict, InvalidInput, ServiceError

log = structlog.get_logger(__name__)

Changes = dict[str, list[Any]]


def draft_lock(environment: Environment) -> Environment:
    """Serialise the writes of one environment until the transaction ends."""
    return Environment.objects.select_for_update().get(pk=environment.pk)


def draft_lock_all() -> list[Environment]:
    """Serialise the writes of all environments, for what they share: names of models."""
    return list(Environment.objects.select_for_update().order_by("pk"))


def draft_changed(*, environment: Environment, actor: User | None) -> None:
    """Call last in each write: an environment that publishes by itself does so on commit."""
    if environment.auto_publish:
        transaction.on_commit(partial(_publish, environment, actor))


def _publish(environment: Environment, actor: User | None) -> None:
    # The one import against the direction of the apps: catalog is below fleet.
    from gateway_admin.fleet.services import revision_publish

    try:
        revision_publish(environment=environment, actor=actor, comment="Published by the edit")
    except ServiceError as error:
        # The edit stands and stays a draft; the publish page shows the same reason.
        log.warning("auto_publish_refused", environment=environment.slug, reason=error.message)


def assign(row: models.Model, fields: Mapping[str, Any]) -> Changes:
    """Set the fields and return what differs: {field: [before, after]}."""
    changes: Changes = {}
    for name, value in fields.items():
        before = getattr(row, name, None)  # a new row has no related rows yet
        if before != value:
            changes[name] = [plain(before), plain(value)]
            setattr(row, name, value)
    return changes


def check_and_save(row: models.Model, *, update_fields: Iterable[str] | None = None) -> None:
    """Validate and write; the first thing wrong is raised as InvalidInput at its field."""
    try:
        row.full_clean()
    except ValidationError as error:
        raise first_problem(error) from error
    try:
        with transaction.atomic():
            row.save(update_fields=list(update_fields) if update_fields is not None else None)
    except IntegrityError as error:
        raise Conflict("Somebody else changed this at the same moment. Try again.") from error


def first_problem(error: ValidationError) -> InvalidInput:
    problems = error.message_dict if hasattr(error, "error_dict") else {"": error.messages}
    name, messages = next(iter(problems.items()))
    if name == NON_FIELD_ERRORS:  # the unique constraints, all of which are about the name
        name = "name"
    return InvalidInput(messages[0], field=name or None)


def plain(value: Any) -> Any:
    """A value as it is written to the audit trail."""
    if isinstance(value, models.Model):
        return str(value)
    if isinstance(value, UUID | Decimal):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return value
