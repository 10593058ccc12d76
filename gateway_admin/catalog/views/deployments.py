"""Pages of deployments, their prices and their test."""

from functools import partial
from typing import Any

from django.contrib import messages
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.http import require_POST
from kombu.exceptions import OperationalError

from gateway_admin.accounts.roles import Role, requires
from gateway_admin.catalog import queries, services
from gateway_admin.catalog.breakers import breaker_card, kept_out
from gateway_admin.catalog.connection_test import connection_test_begin, is_running
from gateway_admin.catalog.forms.routing import CloneForm, DeploymentForm, quotes
from gateway_admin.catalog.forms.supply import DeploymentFilter
from gateway_admin.catalog.kinds import litellm_params
from gateway_admin.catalog.models import Credential, Deployment, Environment, Model
from gateway_admin.catalog.onboarding import deploy
from gateway_admin.catalog.presentation import deployment_rows, deployment_state, tested_at
from gateway_admin.catalog.prices import price_for
from gateway_admin.catalog.traffic import lane_card, signs_of
from gateway_admin.catalog.views.common import (
    act,
    actor_of,
    changed,
    deleted,
    enter,
    environment_of,
    filters_active,
    form_page,
    list_page,
    paged,
    saved,
    switched,
)
from gateway_admin.lib.errors import Conflict

PLAIN_FIELDS = (
    "upstream_model",
    "region",
    "weight",
    "rpm",
    "tpm",
    "timeout_s",
    "stream_timeout_s",
    "lane",
    "params",
)


@requires(Role.ADMIN)
def deployment_list(request: HttpRequest) -> HttpResponse:
    environment = environment_of(request)
    form = DeploymentFilter(request.GET)
    rows = _filtered(queries.deployments_of(environment), form)
    if form.value("state") == "kept_out":
        rows = rows.filter(pk__in=kept_out(environment))
    page, pager = paged(request, rows)
    context = {
        "filter": form,
        "rows": deployment_rows(page.object_list),
        "total": page.paginator.count,
        "pager": pager,
        "filtered": filters_active(request),
        "has_credentials": Credential.objects.filter(environment=environment).exists(),
    }
    return list_page(request, "catalog/deployment_list.html", context)


def _filtered(rows: QuerySet[Deployment], form: DeploymentFilter) -> QuerySet[Deployment]:
    if words := form.value("q"):
        rows = rows.filter(
            Q(name__icontains=words)
            | Q(model__name__icontains=words)
            | Q(upstream_model__icontains=words)
        )
    if provider := form.value("provider"):
        rows = rows.filter(provider__slug=provider)
    match form.value("state"):
        case "enabled":
            rows = rows.filter(enabled=True)
        case "disabled":
            rows = rows.filter(enabled=False)
        case "failed":
            rows = rows.filter(last_test__state="error")
        case "untested":
            rows = rows.filter(last_test__isnull=True)
    return rows


@requires(Role.ADMIN)
def deployment_create(request: HttpRequest) -> HttpResponse:
    environment = environment_of(request)
    initial = {
        "credential": request.GET.get("credential", ""),
        "model_name": request.GET.get("model", ""),
    }
    form = DeploymentForm(request.POST or None, environment=environment, initial=initial)
    if request.method == "POST" and form.is_valid():
        deployment = form.save_with(lambda: _create(request, environment, form))
        if deployment is not None:
            saved(request, f"Deployment {deployment} created", environment)
            return HttpResponseRedirect(_detail(deployment))
    return form_page(request, "catalog/deployment_form.html", _form_context(form))


def _create(request: HttpRequest, environment: Environment, form: DeploymentForm) -> Deployment:
    data = form.cleaned_data
    return deploy(
        actor=actor_of(request),
        environment=environment,
        model_name=data["model_name"],
        name=data["name"],
        credential=data["credential"],
        price_source=data["price_source"],
        price_units=form.price_units(),
        **{name: data[name] for name in PLAIN_FIELDS},
    )


@requires(Role.ADMIN)
def deployment_edit(request: HttpRequest, pk: str) -> HttpResponse:
    deployment = _get(request, pk)
    form = DeploymentForm(
        request.POST or None, environment=deployment.environment, deployment=deployment
    )
    if request.method == "POST" and form.is_valid():
        done = form.save_with(lambda: _update(request, deployment, form))
        if done is not None:
            saved(request, f"Deployment {done} saved", deployment.environment)
            return HttpResponseRedirect(_detail(deployment))
    context = {**_form_context(form), "deployment": deployment}
    return form_page(request, "catalog/deployment_form.html", context)


def _update(request: HttpRequest, deployment: Deployment, form: DeploymentForm) -> Deployment:
    data = form.cleaned_data
    return deploy(
        actor=actor_of(request),
        environment=deployment.environment,
        deployment=deployment,
        model_name=data["model_name"],
        name=data["name"],
        credential=data["credential"],
        price_source=data["price_source"],
        price_units=form.price_units(),
        **{name: data[name] for name in PLAIN_FIELDS},
    )


@require_POST
@requires(Role.ADMIN)
def deployment_form_part(request: HttpRequest) -> HttpResponse:
    """The form's fields drawn anew for the chosen credential and model; nothing is saved."""
    form = DeploymentForm(request.POST, environment=environment_of(request))
    form.prefill_own_prices()
    form.errors.clear()  # not sent yet: nothing is wrong yet
    part = "price" if request.GET.get("part") == "price" else "fields"
    return render(request, f"catalog/deployment_form.html#{part}", _form_context(form))


def _form_context(form: DeploymentForm) -> dict[str, Any]:
    return {
        "form": form,
        "entry": form.entry,
        "models": Model.objects.values_list("name", flat=True),
        "credential": form.credential,
    }


@requires(Role.ADMIN)
def deployment_detail(request: HttpRequest, pk: str) -> HttpResponse:
    deployment = _get(request, pk)
    price = queries.current_price(deployment)
    entry = price_for(
        kind=deployment.provider.kind,
        litellm_provider=deployment.provider.litellm_provider,
        upstream_model=deployment.upstream_model,
        region=deployment.region,
    )
    context = {
        "deployment": deployment,
        "state": deployment_state(deployment, signs_of([deployment])),
        "price": price,
        "quotes": quotes(price.units) if price else [],
        "book_differs": bool(entry and entry.units and (not price or price.units != entry.units)),
        "entry": entry,
        "entry_quotes": quotes(entry.units) if entry else [],
        "history": deployment.prices.select_related("created_by")[:10],
        "litellm": litellm_params(deployment),
        "test": deployment.last_test,
        "tested_at": tested_at(deployment),
        "running": is_running(deployment),
        **breaker_card(deployment),
        **lane_card(deployment),
    }
    return render(request, "catalog/deployment_detail.html", context)


@require_POST
@requires(Role.ADMIN)
def deployment_test(request: HttpRequest, pk: str) -> HttpResponse:
    """Begin a test; the fragment that answers polls until it has ended."""
    deployment = _get(request, pk)
    problem = ""
    try:
        connection_test_begin(deployment=deployment, actor=actor_of(request))
    except Conflict as error:
        problem = error.message
    except OperationalError:
        Deployment.objects.filter(pk=pk).update(last_test=deployment.last_test)
        problem = "The test could not be queued: Redis does not answer. Try again when it does."
    if not getattr(request, "htmx", False):
        if problem:
            messages.error(request, problem)
        return HttpResponseRedirect(_detail(deployment))
    return _test_fragment(request, pk, problem=problem)


@requires(Role.ADMIN)
def deployment_test_state(request: HttpRequest, pk: str) -> HttpResponse:
    return _test_fragment(request, pk)


def _test_fragment(request: HttpRequest, pk: str, problem: str = "") -> HttpResponse:
    deployment = _get(request, pk)
    context = {
        "deployment": deployment,
        "test": deployment.last_test,
        "tested_at": tested_at(deployment),
        "running": is_running(deployment),
        "problem": problem,
    }
    return render(request, "catalog/deployment_detail.html#test", context)


@require_POST
@requires(Role.ADMIN)
def deployment_enable(request: HttpRequest, pk: str) -> HttpResponse:
    deployment = _get(request, pk)
    update = partial(services.deployment_update, deployment=deployment)
    return switched(request, deployment, update, url=_detail(deployment))


@require_POST
@requires(Role.ADMIN)
def deployment_use_book_price(request: HttpRequest, pk: str) -> HttpResponse:
    deployment = _get(request, pk)
    return act(
        request,
        lambda: services.deployment_update(
            actor=actor_of(request), deployment=deployment, price_source="book"
        ),
        done="Price taken from the price book. Draft · publish to apply.",
        url=_detail(deployment),
        otherwise=_detail(deployment),
    )


@requires(Role.ADMIN)
def deployment_clone(request: HttpRequest, pk: str) -> HttpResponse:
    deployment = _get(request, pk)
    form = CloneForm(request.POST or None, deployment=deployment)
    if request.method == "POST" and form.is_valid():
        copy = form.save_with(
            lambda: services.deployment_clone(
                actor=actor_of(request), deployment=deployment, **form.cleaned_data
            )
        )
        if copy is not None:
            saved(request, f"{copy} created in {copy.environment}", copy.environment)
            url = f"{_detail(copy)}?environment={copy.environment.slug}"
            return changed(HttpResponseRedirect(url))
    context = {"form": form, "deployment": deployment}
    return form_page(request, "catalog/deployment_clone.html", context)


@require_POST
@requires(Role.ADMIN)
def deployment_delete(request: HttpRequest, pk: str) -> HttpResponse:
    deployment = _get(request, pk)
    delete = partial(services.deployment_delete, deployment=deployment)
    return deleted(
        request,
        deployment,
        delete,
        done=f"Deployment {deployment} deleted. Draft · publish to apply.",
        url=reverse("catalog:deployment-list"),
        otherwise=_detail(deployment),
    )


def _get(request: HttpRequest, pk: str) -> Deployment:
    rows = Deployment.objects.select_related(
        "environment", "model", "provider", "credential__secret", "credential__provider"
    )
    deployment = get_object_or_404(rows, pk=pk)
    enter(request, deployment.environment)
    return deployment


def _detail(deployment: Deployment) -> str:
    return reverse("catalog:deployment-detail", args=[deployment.pk])
