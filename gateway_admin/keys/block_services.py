"""Blocks of teams, people and customers, and the customers themselves."""

from django.db import IntegrityError, transaction

from gateway_admin.accounts.models import User
from gateway_admin.accounts.services import audit
from gateway_admin.catalog.models import Environment
from gateway_admin.keys import rights
from gateway_admin.keys.models import Block, Budget, Customer, RateLimit, Team
from gateway_admin.keys.policies import policy_changed
from gateway_admin.keys.subjects import block_ref, scope_of, target_id
from gateway_admin.lib.errors import Conflict, InvalidInput

EVERYWHERE = "everywhere"
MAX_REFERENCE = 200  # signs; replicas count a longer `user` by its first 200


@transaction.atomic
def subject_block(
    *,
    actor: User,
    target: Team | User | Customer,
    reason: str,
    environment: Environment | None = None,
) -> Block:
    """Refuse all calls of a team, a person or a customer. Callers are told the reason.

    `environment` None: in all of them; a customer is of one environment anyhow. Who is
    blocked there already takes the new reason.
    """
    rights.require(rights.may_block(actor), "Administrators block teams, people and customers.")
    reason = _checked_reason(reason)
    if isinstance(target, Customer):
        environment = target.environment
    scope, subject = scope_of(target), target_id(target)
    block, created = Block.objects.select_for_update(of=("self",)).get_or_create(
        environment=environment,
        scope=scope,
        subject=subject,
        defaults={scope.value: target, "reason": reason, "created_by": actor},
    )
    before = None if created else block.reason
    if before != reason:
        block.reason, block.created_by = reason, actor
        block.save(update_fields=["reason", "created_by"])
        _audit(actor, f"{scope}.block", block, [before, reason])
        _announce(block)
    return block


@transaction.atomic
def subject_unblock(*, actor: User, block: Block) -> None:
    """Let the subject's calls through again."""
    rights.require(rights.may_block(actor), "Administrators unblock teams, people and customers.")
    found = Block.objects.select_for_update(of=("self",)).filter(pk=block.pk).first()
    if found is None:
        raise Conflict("This block was lifted already.")
    _audit(actor, f"{found.scope}.unblock", found, [found.reason, None])
    environments = _environments(found)
    ref = block_ref(found)
    found.delete()
    policy_changed(subjects=[(environment, ref) for environment in environments])


@transaction.atomic
def customer_create(
    *, actor: User, environment: Environment, reference: str, name: str = ""
) -> Customer:
    """Name a customer: the value of the `user` field in requests, in one environment."""
    _require_customers(actor)
    if not reference.strip() or len(reference) > MAX_REFERENCE:
        raise InvalidInput(
            f"The `user` field of requests, 1 to {MAX_REFERENCE} characters.", field="reference"
        )
    if not reference.isprintable():
        raise InvalidInput("Printable characters only.", field="reference")
    customer = Customer(environment=environment, reference=reference, name=_customer_name(name))
    try:
        with transaction.atomic():
            customer.save(force_insert=True)
    except IntegrityError as error:
        raise InvalidInput(
            f"{environment} has a customer of this reference already.", field="reference"
        ) from error
    audit(
        actor=actor,
        action="customer.create",
        target=customer,
        changes={"reference": [None, reference]},
        environment=environment.slug,
    )
    return customer


@transaction.atomic
def customer_update(*, actor: User, customer: Customer, name: str) -> Customer:
    """Rename a customer; the reference is what requests say and stays."""
    _require_customers(actor)
    customer = (
        Customer.objects.select_for_update(of=("self",))
        .select_related("environment")
        .get(pk=customer.pk)
    )
    name = _customer_name(name)
    if name != customer.name:
        changes = {"name": [customer.name, name]}
        customer.name = name
        customer.save(update_fields=["name"])
        audit(
            actor=actor,
            action="customer.update",
            target=customer,
            changes=changes,
            environment=customer.environment.slug,
        )
        policy_changed(subjects=[(customer.environment, ("customer", customer.reference))])
    return customer


@transaction.atomic
def customer_delete(*, actor: User, customer: Customer) -> None:
    """Forget a customer that no rule speaks of; its usage stays in the ledger."""
    _require_customers(actor)
    customer = Customer.objects.select_for_update().get(pk=customer.pk)
    for rules, word in ((Budget, "budgets"), (RateLimit, "limits"), (Block, "blocks")):
        if rules.objects.filter(customer=customer).exists():
            raise Conflict(f"{customer} has {word}. Delete those first.")
    audit(
        actor=actor,
        action="customer.delete",
        target=customer,
        changes={"reference": [customer.reference, None]},
        environment=customer.environment.slug,
    )
    customer.delete()


def _require_customers(actor: User) -> None:
    rights.require(rights.manages_customers(actor), "Administrators and finance manage customers.")


def _customer_name(name: str) -> str:
    name = " ".join(name.split())
    if len(name) > 100:
        raise InvalidInput("At most 100 characters.", field="name")
    return name


def _checked_reason(reason: str) -> str:
    reason = " ".join(reason.split())
    if not reason:
        raise InvalidInput("Say why: callers are shown the reason.", field="reason")
    if len(reason) > 200:
        raise InvalidInput("At most 200 characters.", field="reason")
    return reason


def _environments(block: Block) -> list[Environment]:
    return [block.environment] if block.environment else list(Environment.objects.all())


def _announce(block: Block) -> None:
    ref = block_ref(block)
    policy_changed(subjects=[(environment, ref) for environment in _environments(block)])


def _audit(actor: User, action: str, block: Block, reasons: list[str | None]) -> None:
    target = block.target
    audit(
        actor=actor,
        action=action,
        target=target,
        changes={
            "where": [None, block.environment.name if block.environment else EVERYWHERE],
            "reason": reasons,
        },
        environment=block.environment.slug if block.environment else "",
    )
