"""Pages of rate limits: list with present use, set, lift; the cards on other pages."""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from gateway_admin.accounts.models import User
from gateway_admin.accounts.roles import is_admin, sees_all_spend
from gateway_admin.keys import limit_services, rights
from gateway_admin.keys.effects import limit_effect
from gateway_admin.keys.headroom import headroom_of
from gateway_admin.keys.models import Scope
from gateway_admin.keys.rule_forms import LimitFilter, LimitForm
from gateway_admin.keys.rule_pages import rule_cards
from gateway_admin.keys.rules import RELATED
from gateway_admin.keys.subject_finder import find_subject
from gateway_admin.keys.subjects import Subject, subject_for, subject_of
from gateway_admin.keys.views import actor_of, environment_of
from gateway_admin.lib.errors import Conflict, InvalidInput
from gateway_admin.lib.forms import errors_shown_by
from gateway_admin.lib.keyset import Order, page_of


@require_GET
def limit_list(request: HttpRequest) -> HttpResponse:
    person = actor_of(request)
    form = LimitFilter(request.GET)
    form.is_valid()  # a filter that does not read is left out
    given: dict[str, Any] = form.cleaned_data
    limits = rights.visible_limits(person).filter(environment=environment_of(request))
    if scope := given.get("scope"):
        limits = limits.filter(scope=scope)
    if text := given.get("q"):
        limits = limits.filter(
            Q(team__name__icontains=text)
            | Q(user__email__icontains=text)
            | Q(user__name__icontains=text)
            | Q(key__name__icontains=text)
            | Q(customer__reference__icontains=text)
            | Q(model__icontains=text)
        )
    page = page_of(
        limits.select_related(*RELATED),
        order=Order("created_at", descending=True),
        query=request.GET,
        path=request.path,
    )
    context = {
        "form": form,
        "page": page,
        "lines": headroom_of([(limit, subject_of(limit)) for limit in page.rows]),
        "filtered": any(given.values()),
        "may_create": is_admin(person),
    }
    fragment = "#results" if getattr(request, "htmx", False) else ""
    return render(request, "keys/limit_list.html" + fragment, context)


@require_http_methods(["GET", "POST"])
def limit_edit(request: HttpRequest) -> HttpResponse:
    """Set a limit; on a subject and model that have one it is replaced."""
    person = actor_of(request)
    initial = {name: request.GET[name] for name in LimitForm.base_fields if name in request.GET}
    form = LimitForm(
        request.POST or None,
        person=person,
        environment=environment_of(request),
        initial={"scope": Scope.USER, **initial},
    )
    if not is_admin(person):
        _only_own_keys(request, form)
    if request.method == "POST" and form.is_valid():
        assert form.subject is not None
        with errors_shown_by(form):
            limit_services.limit_set(
                actor=person,
                subject=form.subject,
                model=form.cleaned_data["model"],
                **form.speeds(),
            )
        if form.is_valid():
            messages.success(request, "Limit set. It is in force within a second.")
            return redirect(_page_of(form.subject))
    status = 422 if form.errors else 200
    return render(request, "keys/limit_form.html", {"form": form}, status=status)


def _only_own_keys(request: HttpRequest, form: LimitForm) -> None:
    """Owners of teams come here from a key's page; nobody else has anything to set."""
    name = (request.POST or request.GET).get("key", "")
    try:
        subject = find_subject(
            actor=form.person, environment=form.environment, scope=Scope.KEY, name=name
        )
    except InvalidInput as error:
        raise PermissionDenied("Administrators set limits.") from error
    if not rights.may_set_limit(form.person, subject):
        raise PermissionDenied("Administrators and owners of the key's team set limits.")
    form.offer_scopes([Scope.KEY])


def _page_of(subject: Subject) -> str:
    if subject.scope == Scope.KEY and subject.target is not None:
        return reverse("keys:key-detail", args=[subject.target.pk])
    return reverse("keys:limit-list")


@require_GET
def limit_effect_of(request: HttpRequest) -> HttpResponse:
    """Fragment: what the limit in the form would do."""
    form = LimitForm(request.GET, person=actor_of(request), environment=environment_of(request))
    sentences: list[str] = []
    if form.is_valid() and form.subject is not None:
        sentences = limit_effect(subject=form.subject, model=form.cleaned_data["model"])
    return render(request, "keys/effect.html", {"sentences": sentences})


@require_POST
def limit_delete(request: HttpRequest, pk: UUID) -> HttpResponse:
    person = actor_of(request)
    limits = rights.visible_limits(person).select_related(*RELATED)
    limit = get_object_or_404(limits, pk=pk)
    address = _page_of(subject_of(limit))
    try:
        limit_services.limit_delete(actor=person, limit=limit)
    except Conflict as error:
        messages.error(request, error.message)
    else:
        messages.success(request, "Limit lifted.")
    return redirect(address)


@require_GET
def person_rules(request: HttpRequest, pk: int) -> HttpResponse:
    """Fragment of a person's page: what holds for their calls in this environment."""
    person = actor_of(request)
    if not sees_all_spend(person) and person.pk != pk:
        raise Http404("No such person.")
    user = get_object_or_404(User, pk=pk)
    environment = environment_of(request)
    subjects = [subject_for(user, environment), subject_for(environment, environment)]
    return render(request, "keys/person_rules.html", rule_cards(person, subjects))
