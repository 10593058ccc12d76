"""Pages of people, API tokens and the organisation; set-up links; the chosen environment."""

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit
from uuid import UUID

from allauth.account.adapter import get_adapter
from allauth.mfa.utils import is_mfa_enabled
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from gateway_admin.accounts import forms, queries, services
from gateway_admin.accounts.models import ApiToken, Organisation, SetupLink, User
from gateway_admin.accounts.roles import Role, is_admin, requires, role_of
from gateway_admin.lib.errors import Conflict
from gateway_admin.lib.forms import errors_shown_by
from gateway_admin.lib.keyset import Order, page_of

admins_only = requires(Role.ADMIN)


@never_cache
@sensitive_post_parameters("password")
@require_http_methods(["GET", "POST"])
def setup(request: HttpRequest, secret: str) -> HttpResponse:
    """A one-time link: the first administrator, or somebody who sets a password."""
    link = services.setup_link_find(secret=secret)
    if link is None:
        context = {"has_administrator": services.has_administrator()}
        return render(request, "accounts/setup_gone.html", context, status=410)
    form = _setup_form(link, request.POST or None)
    if request.method == "POST" and form.is_valid():
        with errors_shown_by(form):
            values = form.cleaned_data
            if link.user is None:
                person = services.setup_complete(secret=secret, **values)
            else:
                person = services.password_link_use(secret=secret, **values)
        if form.is_valid():
            return _after_setup(request, person)
    status = 422 if form.errors else 200
    return render(request, "accounts/setup.html", {"form": form, "link": link}, status=status)


def _setup_form(link: SetupLink, data: Any) -> forms.PasswordForm:
    if link.user is None:
        return forms.FirstAdministratorForm(data)
    return forms.PasswordForm(data, initial={"name": link.user.name})


def _after_setup(request: HttpRequest, person: User) -> HttpResponse:
    """Sign in, unless a second factor has still to be asked for."""
    if is_mfa_enabled(person):
        messages.success(request, "Password set. Sign in with it and your second factor.")
        return redirect("account_login")
    get_adapter(request).login(request, person)
    messages.success(request, f"Welcome, {person.get_short_name()}.")
    return redirect("dashboards:overview")


@require_GET
@admins_only
def people_list(request: HttpRequest) -> HttpResponse:
    form = forms.PeopleFilter(request.GET)
    form.is_valid()
    values = form.cleaned_data
    found = queries.people(
        text=values.get("q", ""), role=values.get("role", ""), state=values.get("state", "")
    )
    page = page_of(found, order=Order("email"), query=request.GET, path=request.path)
    for person in page.rows:
        person.role_name = _role_name(person)  # type: ignore[attr-defined]
    context = {"form": form, "page": page, "filtered": any(values.values())}
    template = "accounts/people_list.html"
    return render(request, template + ("#results" if _is_fragment(request) else ""), context)


def _role_name(person: User) -> str:
    """From the prefetched groups, without a query per row."""
    names = {group.name for group in person.groups.all()}
    return next((role.value for role in Role if role.value in names), Role.DEVELOPER.value)


@require_http_methods(["GET", "POST"])
@admins_only
def person_create(request: HttpRequest) -> HttpResponse:
    form = forms.NewPersonForm(request.POST or None, initial={"role": Role.DEVELOPER})
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        with errors_shown_by(form):
            person = services.user_create(
                actor=_actor(request),
                email=values["email"],
                name=values["name"],
                role=Role(values["role"]),
            )
        if form.is_valid():
            return _show_link(request, person, added=True)
    status = 422 if form.errors else 200
    return render(request, "accounts/person_create.html", {"form": form}, status=status)


@require_http_methods(["GET", "POST"])
@admins_only
def person_detail(request: HttpRequest, pk: int) -> HttpResponse:
    person = get_object_or_404(User, pk=pk)
    form = forms.PersonForm.of(person, request.POST or None)
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        with errors_shown_by(form):
            services.user_update(
                actor=_actor(request),
                user=person,
                name=values["name"],
                role=Role(values["role"]),
            )
        if form.is_valid():
            messages.success(request, f"Saved {values['name']}.")
            return redirect("accounts:person-detail", pk=pk)
    context = {
        "form": form,
        "person": person,
        "role": role_of(person),
        "has_mfa": is_mfa_enabled(person),
        "tokens": queries.tokens_of(person).filter(revoked_at=None),
    }
    status = 422 if form.errors else 200
    return render(request, "accounts/person_detail.html", context, status=status)


@require_POST
@admins_only
def person_link(request: HttpRequest, pk: int) -> HttpResponse:
    return _show_link(request, get_object_or_404(User, pk=pk))


def _show_link(request: HttpRequest, person: User, *, added: bool = False) -> HttpResponse:
    """The one-time link is on this page only; it is not kept anywhere."""
    try:
        secret = services.password_link_create(actor=_actor(request), user=person)
    except Conflict as error:
        messages.error(request, error.message)
        return redirect("accounts:person-detail", pk=person.pk)
    context = {
        "person": person,
        "added": added,
        "address": settings.PUBLIC_URL + reverse("accounts:setup", args=[secret]),
        "days": services.SETUP_LINK_LIFETIME.days,
    }
    return _unstored(render(request, "accounts/person_link.html", context))


@require_POST
@admins_only
def person_deactivate(request: HttpRequest, pk: int) -> HttpResponse:
    person = get_object_or_404(User, pk=pk)
    try:
        services.user_deactivate(actor=_actor(request), user=person)
    except Conflict as error:
        messages.error(request, error.message)
    else:
        messages.success(request, f"{person} is deactivated and signed out everywhere.")
    return redirect("accounts:person-detail", pk=pk)


@require_POST
@admins_only
def person_reactivate(request: HttpRequest, pk: int) -> HttpResponse:
    person = get_object_or_404(User, pk=pk)
    services.user_reactivate(actor=_actor(request), user=person)
    messages.success(request, f"{person} can sign in again.")
    return redirect("accounts:person-detail", pk=pk)


@require_GET
def token_list(request: HttpRequest) -> HttpResponse:
    context = {"tokens": queries.tokens_of(_actor(request))}
    return render(request, "accounts/token_list.html", context)


@require_http_methods(["GET", "POST"])
def token_create(request: HttpRequest) -> HttpResponse:
    person = _actor(request)
    form = forms.TokenForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        with errors_shown_by(form):
            token, text = services.api_token_create(
                actor=person,
                user=person,
                name=form.cleaned_data["name"],
                scope=form.cleaned_data["scope"],
                expires_at=form.expires_at(),
            )
        if form.is_valid():
            return _show_token(request, token, text)
    status = 422 if form.errors else 200
    return render(request, "accounts/token_create.html", {"form": form}, status=status)


def _show_token(request: HttpRequest, token: ApiToken, text: str) -> HttpResponse:
    address = f"{settings.PUBLIC_URL}/api/v1/keys/"
    context = {
        "token": token,
        "text": text,
        "snippets": [
            {"label": "curl", "code": f'curl {address} \\\n  -H "Authorization: Bearer {text}"'}
        ],
    }
    return _unstored(render(request, "accounts/token_created.html", context))


@require_POST
def token_revoke(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Own tokens; administrators revoke anybody's."""
    person = _actor(request)
    tokens = ApiToken.objects.all() if is_admin(person) else ApiToken.objects.filter(user=person)
    token = get_object_or_404(tokens, pk=pk)
    services.api_token_revoke(actor=person, token=token)
    messages.success(request, f"Token {token.name} is revoked.")
    if token.user_id != person.pk:
        return redirect("accounts:person-detail", pk=token.user_id)
    return redirect("accounts:token-list")


@require_http_methods(["GET", "POST"])
@admins_only
def organisation_settings(request: HttpRequest) -> HttpResponse:
    organisation = Organisation.objects.get()
    form = forms.OrganisationForm.of(organisation, request.POST or None)
    if request.method == "POST" and form.is_valid():
        with errors_shown_by(form):
            services.organisation_update(actor=_actor(request), **form.cleaned_data)
        if form.is_valid():
            messages.success(request, "Settings saved.")
            return redirect("accounts:settings")
    status = 422 if form.errors else 200
    return render(request, "accounts/settings.html", {"form": form}, status=status)


@require_POST
def switch_environment(request: HttpRequest) -> HttpResponse:
    """Remember the environment and go back to where one was; unknown ones are ignored there."""
    request.session["environment"] = request.POST.get("environment", "")[:39]
    target = request.POST.get("next", "/")
    if not url_has_allowed_host_and_scheme(target, {request.get_host()}, request.is_secure()):
        target = "/"
    parts = urlsplit(target)
    kept = [(name, value) for name, value in parse_qsl(parts.query) if name != "environment"]
    return redirect(parts._replace(query=urlencode(kept)).geturl())


def _actor(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # the middleware lets nobody else through
    return request.user


def _is_fragment(request: HttpRequest) -> bool:
    return bool(getattr(request, "htmx", False))


def _unstored(response: HttpResponse) -> HttpResponse:
    """A page with a secret is kept by no cache, and not by the browser's either."""
    response["Cache-Control"] = "no-store"
    return response
