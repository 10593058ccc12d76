"""Pages keep the content security policy, and say what they are."""

import re
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.test import Client, RequestFactory
from django.utils import timezone

from gateway_admin.accounts.models import Organisation
from gateway_admin.frame.middleware import TimeZoneMiddleware

TEMPLATES = sorted((Path(settings.BASE_DIR) / "templates").rglob("*.html"))


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_no_template_has_inline_scripts_or_styles(template: Path) -> None:
    text = template.read_text()
    for tag in re.findall(r"<script\b[^>]*>", text):
        assert "src=" in tag or 'type="application/json"' in tag, tag
    assert not re.search(r"\son[a-z]+=", text), "event handler attribute"
    assert not re.search(r"\sstyle=|<style\b|javascript:", text), "inline style"


@pytest.mark.django_db
def test_every_page_limits_what_it_may_load() -> None:
    response = Client().get("/account/login/")
    policy = response.headers["Content-Security-Policy"]
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "HX-Request" in response.headers["Vary"]


@pytest.mark.django_db
def test_an_unknown_address_says_so_in_the_frame(people: Any, client_of: Any) -> None:
    response = client_of(people.owner).get("/no/such/page/")
    assert response.status_code == 404
    assert "Nothing here" in response.content.decode()


def test_error_pages_need_no_database() -> None:
    for status in (403, 404, 500, 503):
        assert str(status) in render_to_string(f"{status}.html")


@pytest.mark.django_db
def test_times_are_in_the_zone_of_the_organisation(people: Any, rf: RequestFactory) -> None:
    Organisation.objects.update_or_create(id=1, defaults={"time_zone": "Asia/Kolkata"})
    request = rf.get("/")
    request.user = people.owner
    zones = []

    def page(request: HttpRequest) -> HttpResponse:
        zones.append(timezone.get_current_timezone_name())
        return HttpResponse()

    TimeZoneMiddleware(page)(request)
    request.user = AnonymousUser()
    TimeZoneMiddleware(page)(request)
    assert zones == ["Asia/Kolkata", "UTC"]


@pytest.mark.django_db
def test_the_demo_banner_shows_while_there_is_demo_data(people: Any, client_of: Any) -> None:
    client = client_of(people.owner)
    assert "Demo data" not in client.get("/account/2fa/").content.decode()
    Organisation.objects.update_or_create(id=1, defaults={"demo_since": timezone.now()})
    page = client.get("/account/2fa/").content.decode()
    assert "Demo data" in page
    assert "Remove demo data" not in page
    page = client_of(people.admin).get("/account/2fa/").content.decode()
    assert "Remove demo data" in page
