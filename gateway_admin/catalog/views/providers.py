"""Pages of providers."""

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.http import require_POST

from gateway_admin.accounts.roles import Role, requires
from gateway_admin.catalog import queries, services
from gateway_admin.catalog.forms.supply import ProviderForm
from gateway_admin.catalog.kinds import KINDS, kind_of
from gateway_admin.catalog.models import Provider
from gateway_admin.catalog.views.common import act, actor_of, form_page, name_was_typed, saved


@requires(Role.ADMIN)
def provider_list(request: HttpRequest) -> HttpResponse:
    context = {"providers": queries.providers_with_counts(), "kinds": KINDS.values()}
    return render(request, "catalog/provider_list.html", context)


@requires(Role.ADMIN)
def provider_choose(request: HttpRequest) -> HttpResponse:
    """Which kind? One card each."""
    return render(request, "catalog/provider_choose.html", {"kinds": KINDS.values()})


@requires(Role.ADMIN)
def provider_create(request: HttpRequest, kind: str) -> HttpResponse:
    if kind not in KINDS:
        raise Http404
    form = ProviderForm(request.POST or None, kind=KINDS[kind])
    if request.method == "POST" and form.is_valid():
        provider = form.save_with(
            lambda: services.provider_create(
                actor=actor_of(request), kind=kind, **form.cleaned_data
            )
        )
        if provider is not None:
            saved(request, f"{provider} added: now its credential")
            url = reverse("catalog:credential-create", args=[provider.slug])
            return HttpResponseRedirect(url)
    context: dict[str, Any] = {"form": form, "kind": KINDS[kind]}
    if kind == Provider.Kind.OTHER:
        context["litellm_providers"] = queries.litellm_providers()
    return form_page(request, "catalog/provider_form.html", context)


@requires(Role.ADMIN)
def provider_detail(request: HttpRequest, slug: str) -> HttpResponse:
    provider = get_object_or_404(Provider, slug=slug)
    form = ProviderForm(request.POST or None, kind=kind_of(provider), provider=provider)
    if request.method == "POST" and form.is_valid():
        name = form.cleaned_data["name"]
        done = form.save_with(
            lambda: services.provider_update(actor=actor_of(request), provider=provider, name=name)
        )
        if done is not None:
            saved(request, f"{done} saved")
            return HttpResponseRedirect(reverse("catalog:provider-detail", args=[slug]))
    context = {
        "provider": get_object_or_404(Provider, slug=slug),
        "kind": kind_of(provider),
        "form": form,
        "credentials": queries.credentials_of_provider(provider),
    }
    return form_page(request, "catalog/provider_detail.html", context)


@require_POST
@requires(Role.ADMIN)
def provider_delete(request: HttpRequest, slug: str) -> HttpResponse:
    provider = get_object_or_404(Provider, slug=slug)
    detail = reverse("catalog:provider-detail", args=[slug])
    if not name_was_typed(request, provider.name):
        return HttpResponseRedirect(detail)
    return act(
        request,
        lambda: services.provider_delete(actor=actor_of(request), provider=provider),
        done=f"{provider} deleted.",
        url=reverse("catalog:provider-list"),
        otherwise=detail,
    )
