"""Pages of fallback chains. Steps are changed one at a time; nothing is saved until asked."""

from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.http import require_POST

from gateway_admin.accounts.roles import Role, requires
from gateway_admin.catalog import queries, services
from gateway_admin.catalog.forms.routing import ChainForm
from gateway_admin.catalog.models import Environment, FallbackChain, Model
from gateway_admin.catalog.presentation import chain_rows
from gateway_admin.catalog.views.common import (
    act,
    actor_of,
    enter,
    environment_of,
    form_page,
    saved,
    wants_fragment,
)


@requires(Role.ADMIN)
def chain_list(request: HttpRequest) -> HttpResponse:
    environment = environment_of(request)
    rows = chain_rows(queries.chains_of(environment), queries.unmet_targets(environment))
    groups = [
        (label, kind, [row for row in rows if row.chain.kind == kind])
        for kind, label in FallbackChain.Kind.choices
    ]
    context = {
        "groups": [group for group in groups if group[2]],
        "may_write": True,
        "has_models": Model.objects.filter(deployments__environment=environment).exists(),
    }
    return render(request, "catalog/chain_list.html", context)


@requires(Role.ADMIN)
def chain_create(request: HttpRequest) -> HttpResponse:
    environment = environment_of(request)
    initial = {"model": request.GET.get("model", "")}
    form = ChainForm(request.POST or None, environment=environment, initial=initial)
    names = request.POST.getlist("target")
    if request.method == "POST" and "op" in request.POST:
        return _changed_steps(request, form, environment)
    if request.method == "POST" and form.is_valid():
        chain = form.save_with(
            lambda: services.chain_create(
                actor=actor_of(request),
                environment=environment,
                model=form.cleaned_data["model"],
                kind=form.cleaned_data["kind"],
                targets=_models(names),
            )
        )
        if chain is not None:
            saved(request, f"Fallback chain of {chain.model} created", environment)
            return HttpResponseRedirect(reverse("catalog:chain-list"))
    context = _context(form, names, environment)
    return form_page(request, "catalog/chain_form.html", context)


@requires(Role.ADMIN)
def chain_edit(request: HttpRequest, pk: str) -> HttpResponse:
    chain = _get(request, pk)
    form = ChainForm(request.POST or None, environment=chain.environment, chain=chain)
    names = [step.model.name for step in chain.steps.all()]
    if request.method == "POST":
        names = request.POST.getlist("target")
    if "op" in request.POST:
        return _changed_steps(request, form, chain.environment, chain)
    if request.method == "POST" and form.is_valid():
        done = form.save_with(
            lambda: services.chain_update(
                actor=actor_of(request), chain=chain, targets=_models(names)
            )
        )
        if done is not None:
            saved(request, f"Fallback chain of {chain.model} saved", chain.environment)
            return HttpResponseRedirect(reverse("catalog:chain-list"))
    context = _context(form, names, chain.environment, chain)
    return form_page(request, "catalog/chain_form.html", context)


@require_POST
@requires(Role.ADMIN)
def chain_delete(request: HttpRequest, pk: str) -> HttpResponse:
    chain = _get(request, pk)
    return act(
        request,
        lambda: services.chain_delete(actor=actor_of(request), chain=chain),
        done=f"Fallback chain of {chain.model} deleted. Draft · publish to apply.",
        url=reverse("catalog:chain-list"),
        otherwise=reverse("catalog:chain-edit", args=[chain.pk]),
    )


def _changed_steps(
    request: HttpRequest,
    form: ChainForm,
    environment: Environment,
    chain: FallbackChain | None = None,
) -> HttpResponse:
    """The form with one step added, moved or removed: `op` is add, up:2, down:2 or remove:2."""
    names = request.POST.getlist("target")
    operation, _, index = request.POST["op"].partition(":")
    place = int(index) if index.isdigit() and int(index) < len(names) else None
    if operation == "add" and request.POST.get("add"):
        names.append(request.POST["add"])
    elif operation == "remove" and place is not None:
        del names[place]
    elif operation in {"up", "down"} and place is not None:
        other = place + (1 if operation == "down" else -1)
        if 0 <= other < len(names):
            names[place], names[other] = names[other], names[place]
    form.errors.clear()
    form.replace_data({"add": ""})
    context = _context(form, names, environment, chain)
    template = "catalog/chain_form.html"
    return render(request, f"{template}#steps" if wants_fragment(request) else template, context)


def _context(
    form: ChainForm, names: list[str], environment: Environment, chain: FallbackChain | None = None
) -> dict[str, Any]:
    known = {model.name: model for model in queries.models_in(environment).filter(name__in=names)}
    steps = []
    for name in names:
        model = known.get(name)
        reason = (
            queries.why_not_callable(model, queries.deployments_here(model))
            if model
            else f"There is no model “{name}”."
        )
        steps.append({"name": name, "reason": reason})
    first = chain.model.name if chain else str(form["model"].value() or "")
    return {"form": form, "steps": steps, "chain": chain, "first": first}


def _models(names: list[str]) -> list[Model]:
    """The models of these names, in this order; unknown ones are left to the check of steps."""
    found = {model.name: model for model in Model.objects.filter(name__in=names)}
    return [found[name] for name in names if name in found]


def _get(request: HttpRequest, pk: str) -> FallbackChain:
    rows = FallbackChain.objects.select_related("environment", "model")
    chain = get_object_or_404(rows.prefetch_related("steps__model"), pk=pk)
    enter(request, chain.environment)
    return chain
