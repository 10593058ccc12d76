"""A back-fill that was interrupted goes on, and a finished one stays as it is."""

from itertools import islice
from pathlib import Path

import pytest

from gateway_admin.accounts.models import Organisation
from gateway_admin.demo.backfill import backfill
from gateway_admin.lib.errors import Conflict
from gateway_admin.usage.checks import differences
from gateway_admin.usage.models import UsageEvent
from tests.demo.organisation import fill, seed

pytestmark = pytest.mark.django_db


def test_it_goes_on_where_it_stopped_and_adds_nothing_twice(tmp_path: Path) -> None:
    seed(tmp_path)
    assert len(list(islice(backfill(events=1_500, days=10), 2))) == 2
    halfway = UsageEvent.objects.count()
    fill(events=1_500, days=10)
    whole = UsageEvent.objects.count()
    assert 0 < halfway < whole
    fill(events=1_500, days=10)
    assert UsageEvent.objects.count() == whole
    assert differences() == []


def test_without_a_demonstration_it_refuses(db: None) -> None:
    assert Organisation.objects.get().demo_since is None
    with pytest.raises(Conflict, match="demo_seed"):
        fill(events=10)
