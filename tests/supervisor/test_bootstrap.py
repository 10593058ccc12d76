"""The first administrator without a browser."""

import pytest

from gateway_admin.accounts.models import User
from gateway_admin.accounts.roles import Role, role_of
from gateway_admin.accounts.services import api_token_resolve
from gateway_admin.supervisor.bootstrap import administrator_ensure, setup_link
from gateway_admin.supervisor.errors import StartError

pytestmark = pytest.mark.django_db

EMAIL = {"GATEWAY_ADMIN_EMAIL": "first@example.com"}
PASSWORD = {"GATEWAY_ADMIN_PASSWORD": "correct horse battery staple"}
TOKEN = {"GATEWAY_ADMIN_TOKEN": "gwt-first-" + "a" * 32}


def test_nothing_set_gives_a_link() -> None:
    administrator_ensure({})
    assert not User.objects.exists()
    assert "/setup/" in (setup_link() or "")


def test_email_and_password_give_an_administrator_and_no_link() -> None:
    administrator_ensure(EMAIL | PASSWORD)
    user = User.objects.get()
    assert role_of(user) is Role.ADMIN
    assert user.check_password(PASSWORD["GATEWAY_ADMIN_PASSWORD"])
    assert setup_link() is None


def test_a_restart_keeps_a_password_that_was_changed() -> None:
    administrator_ensure(EMAIL | PASSWORD)
    user = User.objects.get()
    user.set_password("another one that is long")
    user.save()
    administrator_ensure(EMAIL | PASSWORD)
    assert User.objects.get().check_password("another one that is long")


def test_the_token_follows_its_setting() -> None:
    administrator_ensure(EMAIL | TOKEN)
    assert api_token_resolve(presented=TOKEN["GATEWAY_ADMIN_TOKEN"])
    replaced = {"GATEWAY_ADMIN_TOKEN": "gwt-second-" + "b" * 32}
    administrator_ensure(EMAIL | replaced)
    administrator_ensure(EMAIL | replaced)
    assert api_token_resolve(presented=TOKEN["GATEWAY_ADMIN_TOKEN"]) is None
    assert api_token_resolve(presented=replaced["GATEWAY_ADMIN_TOKEN"])


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        (PASSWORD, "GATEWAY_ADMIN_EMAIL"),
        (TOKEN, "GATEWAY_ADMIN_EMAIL"),
        (EMAIL, "GATEWAY_ADMIN_PASSWORD"),
        (EMAIL | {"GATEWAY_ADMIN_TOKEN": "short"}, "gwt-"),
    ],
)
def test_half_a_setting_is_refused(environ: dict[str, str], named: str) -> None:
    with pytest.raises(StartError, match=named):
        administrator_ensure(environ)
