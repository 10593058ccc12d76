"""Pages of credentials. A secret is taken in and never shown again."""

from functools import partial

from django.db.models import F, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST

from gateway_admin.accounts.roles import Role, requires
from gateway_admin.catalog import queries, services
from gateway_admin.catalog.forms.supply import CredentialFilter, CredentialForm, SecretForm
from gateway_admin.catalog.kinds import kind_of
from gateway_admin.catalog.models import Credential, Provider
from gateway_admin.catalog.presentation import credential_state, deployment_rows
from gateway_admin.catalog.views.common import (
    actor_of,
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


@requires(Role.ADMIN)
def credential_list(request: HttpRequest) -> HttpResponse:
    form = CredentialFilter(request.GET)
    rows = _filtered(queries.credentials_of(environment_of(request)), form)
    page, pager = paged(request, rows)
    context = {
        "filter": form,
        "rows": [(credential, credential_state(credential)) for credential in page],
        "total": page.paginator.count,
        "pager": pager,
        "filtered": filters_active(request),
        "has_providers": Provider.objects.exists(),
    }
    return list_page(request, "catalog/credential_list.html", context)


def _filtered(rows: QuerySet[Credential], form: CredentialFilter) -> QuerySet[Credential]:
    if words := form.value("q"):
        rows = rows.filter(Q(name__icontains=words) | Q(provider__name__icontains=words))
    if provider := form.value("provider"):
        rows = rows.filter(provider__slug=provider)
    match form.value("state"):
        case "enabled":
            rows = rows.filter(enabled=True)
        case "disabled":
            rows = rows.filter(enabled=False)
        case "refused":
            rows = rows.filter(last_error_class="authentication").filter(
                Q(last_success_at=None) | Q(last_success_at__lt=F("last_error_at"))
            )
    return rows


@requires(Role.ADMIN)
def credential_choose(request: HttpRequest) -> HttpResponse:
    """Of which provider? One card each."""
    context = {"providers": queries.providers_with_counts()}
    return render(request, "catalog/credential_choose.html", context)


@sensitive_post_parameters()
@requires(Role.ADMIN)
def credential_create(request: HttpRequest, provider: str) -> HttpResponse:
    of = get_object_or_404(Provider, slug=provider)
    environment = environment_of(request)
    form = CredentialForm(request.POST or None, provider=of)
    if request.method == "POST" and form.is_valid():
        credential = form.save_with(
            lambda: services.credential_create(
                actor=actor_of(request),
                environment=environment,
                provider=of,
                name=form.cleaned_data["name"],
                params=form.params(),
                secret=form.secret(),
            )
        )
        if credential is not None:
            saved(request, f"Credential {credential} added", environment)
            url = reverse("catalog:credential-detail", args=[credential.pk])
            return HttpResponseRedirect(url)
    context = {"form": form, "provider": of, "kind": kind_of(of)}
    return form_page(request, "catalog/credential_form.html", context)


@requires(Role.ADMIN)
def credential_detail(request: HttpRequest, pk: str) -> HttpResponse:
    credential = _get(request, pk)
    used_by = queries.deployments_of(credential.environment).filter(credential=credential)
    context = {
        "credential": credential,
        "kind": kind_of(credential.provider),
        "state": credential_state(credential),
        "rows": deployment_rows(used_by.order_by("name")),
        "versions": credential.secrets.select_related("created_by").order_by("-version")[:10],
    }
    return render(request, "catalog/credential_detail.html", context)


@requires(Role.ADMIN)
def credential_edit(request: HttpRequest, pk: str) -> HttpResponse:
    credential = _get(request, pk)
    form = CredentialForm(
        request.POST or None,
        provider=credential.provider,
        credential=credential,
        with_secret=False,
    )
    if request.method == "POST" and form.is_valid():
        done = form.save_with(
            lambda: services.credential_update(
                actor=actor_of(request),
                credential=credential,
                name=form.cleaned_data["name"],
                params=form.params(),
            )
        )
        if done is not None:
            saved(request, f"Credential {done} saved", credential.environment)
            return HttpResponseRedirect(_detail(credential))
    context = {
        "form": form,
        "credential": credential,
        "provider": credential.provider,
        "kind": kind_of(credential.provider),
    }
    return form_page(request, "catalog/credential_form.html", context)


@sensitive_post_parameters()
@requires(Role.ADMIN)
def credential_replace(request: HttpRequest, pk: str) -> HttpResponse:
    credential = _get(request, pk)
    form = SecretForm(request.POST or None, kind=kind_of(credential.provider))
    if request.method == "POST" and form.is_valid():
        done = form.save_with(
            lambda: services.credential_replace_secret(
                actor=actor_of(request), credential=credential, secret=form.cleaned_data
            )
        )
        if done is not None:
            saved(request, f"Secret of {done} replaced", credential.environment)
            return HttpResponseRedirect(_detail(credential))
    context = {"form": form, "credential": credential}
    return form_page(request, "catalog/credential_replace.html", context)


@require_POST
@requires(Role.ADMIN)
def credential_enable(request: HttpRequest, pk: str) -> HttpResponse:
    credential = _get(request, pk)
    update = partial(services.credential_update, credential=credential)
    return switched(request, credential, update, url=_detail(credential))


@require_POST
@requires(Role.ADMIN)
def credential_delete(request: HttpRequest, pk: str) -> HttpResponse:
    credential = _get(request, pk)
    delete = partial(services.credential_delete, credential=credential)
    return deleted(
        request,
        credential,
        delete,
        done=f"Credential {credential} deleted.",
        url=reverse("catalog:credential-list"),
        otherwise=_detail(credential),
    )


def _get(request: HttpRequest, pk: str) -> Credential:
    rows = Credential.objects.select_related(
        "environment", "provider", "created_by", "secret__created_by"
    )
    credential = get_object_or_404(rows, pk=pk)
    enter(request, credential.environment)
    return credential


def _detail(credential: Credential) -> str:
    return reverse("catalog:credential-detail", args=[credential.pk])
