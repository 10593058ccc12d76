"""Pages of models (everybody reads) and aliases."""

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.http import require_POST

from gateway_admin.accounts.roles import Role, is_admin, requires
from gateway_admin.catalog import queries, services
from gateway_admin.catalog.forms.supply import AliasForm, ModelFilter, ModelForm
from gateway_admin.catalog.models import Deployment, Environment, Model, ModelAlias
from gateway_admin.catalog.presentation import chain_rows, deployment_rows, model_rows
from gateway_admin.catalog.views.common import (
    act,
    actor_of,
    enter,
    environment_of,
    filters_active,
    form_page,
    list_page,
    name_was_typed,
    paged,
    saved,
)


@requires(*Role)
def model_list(request: HttpRequest) -> HttpResponse:
    environment = environment_of(request)
    form = ModelFilter(request.GET)
    page, pager = paged(request, _filtered(queries.models_in(environment), environment, form))
    context = {
        "filter": form,
        "rows": model_rows(page.object_list),
        "total": page.paginator.count,
        "pager": pager,
        "filtered": filters_active(request),
        "may_write": is_admin(request.user),
    }
    return list_page(request, "catalog/model_list.html", context)


def _filtered(
    rows: QuerySet[Model], environment: Environment, form: ModelFilter
) -> QuerySet[Model]:
    if words := form.value("q"):
        rows = rows.filter(Q(name__icontains=words) | Q(description__icontains=words))
    if mode := form.value("mode"):
        rows = rows.filter(mode=mode)
    here = Exists(Deployment.objects.filter(model=OuterRef("pk"), environment=environment))
    match form.value("served"):
        case "yes":
            rows = rows.filter(here)
        case "no":
            rows = rows.filter(~here)
    return rows


@requires(*Role)
def model_detail(request: HttpRequest, pk: str) -> HttpResponse:
    environment = environment_of(request)
    model = get_object_or_404(queries.models_in(environment), pk=pk)
    chains = queries.chains_of(environment).filter(Q(model=model) | Q(steps__model=model))
    context = {
        "model": model,
        "row": model_rows([model])[0],
        "rows": deployment_rows(queries.deployments_of(environment).filter(model=model)),
        "elsewhere": queries.environments_serving(model).exclude(pk=environment.pk),
        "aliases": model.aliases.filter(environment=environment),
        "chains": chain_rows(chains.distinct(), queries.unmet_targets(environment)),
        "may_write": is_admin(request.user),
    }
    return render(request, "catalog/model_detail.html", context)


@requires(Role.ADMIN)
def model_create(request: HttpRequest) -> HttpResponse:
    form = ModelForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        model = form.save_with(
            lambda: services.model_create(actor=actor_of(request), **form.cleaned_data)
        )
        if model is not None:
            saved(request, f"Model {model} created: now a deployment that serves it")
            return HttpResponseRedirect(_detail(model))
    return form_page(request, "catalog/model_form.html", {"form": form})


@requires(Role.ADMIN)
def model_edit(request: HttpRequest, pk: str) -> HttpResponse:
    model = get_object_or_404(Model, pk=pk)
    form = ModelForm(request.POST or None, model=model)
    if request.method == "POST" and form.is_valid():
        done = form.save_with(
            lambda: services.model_update(actor=actor_of(request), model=model, **form.cleaned_data)
        )
        if done is not None:
            saved(request, f"Model {done} saved", environment_of(request))
            return HttpResponseRedirect(_detail(model))
    context = {"form": form, "model": get_object_or_404(Model, pk=pk)}
    return form_page(request, "catalog/model_form.html", context)


@require_POST
@requires(Role.ADMIN)
def model_delete(request: HttpRequest, pk: str) -> HttpResponse:
    model = get_object_or_404(Model, pk=pk)
    if not name_was_typed(request, model.name):
        return HttpResponseRedirect(_detail(model))
    return act(
        request,
        lambda: services.model_delete(actor=actor_of(request), model=model),
        done=f"Model {model} deleted.",
        url=reverse("catalog:model-list"),
        otherwise=_detail(model),
    )


@requires(Role.ADMIN)
def alias_list(request: HttpRequest) -> HttpResponse:
    environment = environment_of(request)
    aliases = list(ModelAlias.objects.filter(environment=environment).select_related("model"))
    served = queries.served_models(environment)
    context = {
        "rows": [(alias, alias.model_id in served) for alias in aliases],
        "has_models": Model.objects.exists(),
    }
    return render(request, "catalog/alias_list.html", context)


@requires(Role.ADMIN)
def alias_create(request: HttpRequest) -> HttpResponse:
    environment = environment_of(request)
    form = AliasForm(request.POST or None, environment=environment)
    if request.method == "POST" and form.is_valid():
        alias = form.save_with(
            lambda: services.alias_create(
                actor=actor_of(request), environment=environment, **form.cleaned_data
            )
        )
        if alias is not None:
            saved(request, f"Alias {alias} points to {alias.model}", environment)
            return HttpResponseRedirect(reverse("catalog:alias-list"))
    return form_page(request, "catalog/alias_form.html", {"form": form})


@requires(Role.ADMIN)
def alias_edit(request: HttpRequest, pk: str) -> HttpResponse:
    alias = _alias(request, pk)
    form = AliasForm(request.POST or None, environment=alias.environment, alias=alias)
    if request.method == "POST" and form.is_valid():
        done = form.save_with(
            lambda: services.alias_update(
                actor=actor_of(request), alias=alias, model=form.cleaned_data["model"]
            )
        )
        if done is not None:
            saved(request, f"Alias {done} points to {done.model}", alias.environment)
            return HttpResponseRedirect(reverse("catalog:alias-list"))
    return form_page(request, "catalog/alias_form.html", {"form": form, "alias": alias})


@require_POST
@requires(Role.ADMIN)
def alias_delete(request: HttpRequest, pk: str) -> HttpResponse:
    alias = _alias(request, pk)
    edit = reverse("catalog:alias-edit", args=[alias.pk])
    if not name_was_typed(request, alias.name):
        return HttpResponseRedirect(edit)
    return act(
        request,
        lambda: services.alias_delete(actor=actor_of(request), alias=alias),
        done=f"Alias {alias} deleted. Draft · publish to apply.",
        url=reverse("catalog:alias-list"),
        otherwise=edit,
    )


def _alias(request: HttpRequest, pk: str) -> ModelAlias:
    alias = get_object_or_404(ModelAlias.objects.select_related("environment", "model"), pk=pk)
    enter(request, alias.environment)
    return alias


def _detail(model: Model) -> str:
    return reverse("catalog:model-detail", args=[model.pk])
