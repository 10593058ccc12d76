"""What customers cost lately, from the ledger's daily sums."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from django.db.models import Exists, OuterRef, Sum
from django.utils import timezone

from gateway_admin.catalog.models import Environment
from gateway_admin.keys.models import Customer

SPEND_DAYS = 30


@dataclass(frozen=True)
class Spender:
    """A customer nobody gave a name to. US dollars."""

    reference: str
    requests: int
    spent: Decimal


@dataclass(frozen=True)
class CustomerSpend:
    """Reads of one environment since a day of the organisation's time zone."""

    environment: Environment
    since: date

    def of(self, references: Collection[str]) -> dict[str, Decimal]:
        """Spend of these customers; those without any are left out."""
        sums = self._days().filter(customer__in=references).values_list("customer")
        return dict(sums.annotate(spent=Sum("cost")).values_list("customer", "spent"))

    def unnamed(self, most: int) -> list[Spender]:
        """Customers without a row of their own that cost most."""
        named = Customer.objects.filter(
            environment=self.environment, reference=OuterRef("customer")
        )
        sums = self._days().exclude(customer="").filter(~Exists(named)).values("customer")
        rows = sums.annotate(asked=Sum("requests"), spent=Sum("cost"))
        dearest = rows.order_by("-spent", "customer")[:most]
        return [Spender(row["customer"], row["asked"], row["spent"]) for row in dearest]

    def _days(self) -> Any:
        # The ledger stands above this app.
        from gateway_admin.usage.models import CustomerDay

        return CustomerDay.objects.filter(environment_id=self.environment.pk, day__gte=self.since)


def customer_spend(environment: Environment) -> CustomerSpend:
    return CustomerSpend(environment, timezone.localdate() - timedelta(days=SPEND_DAYS - 1))
