"""Writes on revisions and on what replicas report."""

from collections.abc import Mapping
from functools import partial

from django.db import transaction
from django.utils import timezone

from gateway_admin.accounts.models import User
from gateway_admin.accounts.services import audit
from gateway_admin.catalog.models import Environment
from gateway_admin.fleet.diff import diff_documents
from gateway_admin.fleet.documents import render
from gateway_admin.fleet.identity import (
    fleet_identity,
    identity_file,
    identity_reveal,
    open_key,
    open_token,
    token_rotate,
)
from gateway_admin.fleet.models import Revision
from gateway_admin.fleet.queries import active_revision
from gateway_admin.fleet.restore import restore_document
from gateway_admin.lib import bell
from gateway_admin.lib.errors import Conflict, InvalidInput
from proxy.contract import ContractError, RevisionDocument, check_document, document_digest

__all__ = [
    "fleet_identity",
    "identity_file",
    "identity_reveal",
    "open_key",
    "open_token",
    "revision_publish",
    "revision_rollback",
    "token_rotate",
]

COMMENT_LENGTH = 300


@transaction.atomic
def revision_publish(
    *,
    environment: Environment,
    actor: User | None,
    comment: str = "",
    expected_digest: str | None = None,
) -> Revision:
    """Make the draft the newest revision; an unchanged draft gives the active one back.

    The environment's row is locked first, as by every catalog write, so a publish sees whole
    edits and numbers have no gaps. `expected_digest` is that of the draft which somebody has
    read: Conflict when it is another one by now.
    """
    environment = _locked(environment)
    return _publish(
        environment=environment,
        actor=actor,
        comment=_clean_comment(comment),
        expected_digest=expected_digest,
    )


@transaction.atomic
def revision_rollback(*, revision: Revision, actor: User | None, comment: str = "") -> Revision:
    """Write an earlier revision back to the rows and publish them under a higher number."""
    environment = _locked(revision.environment)
    active = active_revision(environment)
    if active is not None and active.pk == revision.pk:
        raise Conflict(f"Revision {revision.number} is active. There is nothing to roll back to.")
    restored = restore_document(environment=environment, revision=revision, actor=actor)
    environment.refresh_from_db()
    published = _publish(
        environment=environment,
        actor=actor,
        comment=_clean_comment(comment) or f"Back to revision {revision.number}",
        rolled_back_to=revision.number,
    )
    audit(
        actor=actor,
        action="revision.rollback",
        target=published,
        environment=environment.slug,
        changes={
            "revision": [active.number if active else None, revision.number],
            "rows": restored,
        },
    )
    return published


def _locked(environment: Environment) -> Environment:
    # Not FOR UPDATE proper: rows that refer to the environment (keys, usage) may go on coming in.
    return Environment.objects.select_for_update(no_key=True).get(pk=environment.pk)


def _publish(
    *,
    environment: Environment,
    actor: User | None,
    comment: str,
    rolled_back_to: int | None = None,
    expected_digest: str | None = None,
) -> Revision:
    document = _checked(render(environment))
    digest = document_digest(document)
    if expected_digest is not None and expected_digest != digest:
        raise Conflict("The draft changed meanwhile. Read it again, then publish.")
    active = active_revision(environment)
    if active is not None and active.digest == digest:
        return active
    changes = diff_documents(active.document if active else None, document)
    revision = Revision.objects.create(
        environment=environment,
        number=active.number + 1 if active else 1,
        digest=digest,
        document=document,
        change_count=len(changes),
        comment=comment,
        published_by=actor,
        published_at=timezone.now(),
        rolled_back_to=rolled_back_to,
    )
    audit(
        actor=actor,
        action="revision.publish",
        target=revision,
        environment=environment.slug,
        changes=_audited(active, revision),
    )
    transaction.on_commit(partial(bell.ring, environment.slug, revision=revision.number))
    return revision


def _audited(active: Revision | None, revision: Revision) -> Mapping[str, object]:
    return {
        "revision": [active.number if active else None, revision.number],
        "digest": [active.digest[:12] if active else None, revision.digest[:12]],
        "comment": [None, revision.comment],
    }


def _checked(document: RevisionDocument) -> RevisionDocument:
    try:
        return check_document(document)
    except ContractError as error:
        raise Conflict(f"This draft cannot be published: {error}. Correct it first.") from error


def _clean_comment(comment: str) -> str:
    text = " ".join(comment.split())
    if len(text) > COMMENT_LENGTH:
        raise InvalidInput(f"At most {COMMENT_LENGTH} signs.", field="comment")
    return text
