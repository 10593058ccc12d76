"""Pages of environments."""

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.http import require_POST

from gateway_admin.accounts.roles import Role, requires
from gateway_admin.catalog import services
from gateway_admin.catalog.forms.environments import EnvironmentForm
from gateway_admin.catalog.models import Environment
from gateway_admin.catalog.queries import environments_with_counts
from gateway_admin.catalog.views.common import act, actor_of, form_page, name_was_typed, saved


@requires(Role.ADMIN)
def environment_list(request: HttpRequest) -> HttpResponse:
    context = {"environments": environments_with_counts()}
    return render(request, "catalog/environment_list.html", context)


@requires(Role.ADMIN)
def environment_create(request: HttpRequest) -> HttpResponse:
    form = EnvironmentForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        environment = form.save_with(
            lambda: services.environment_create(actor=actor_of(request), **form.cleaned_data)
        )
        if environment is not None:
            saved(request, f"{environment} created")
            return HttpResponseRedirect(reverse("catalog:environment-list"))
    return form_page(request, "catalog/environment_form.html", {"form": form})


@requires(Role.ADMIN)
def environment_edit(request: HttpRequest, slug: str) -> HttpResponse:
    environment = get_object_or_404(Environment, slug=slug)
    form = EnvironmentForm(request.POST or None, environment=environment)
    if request.method == "POST" and form.is_valid():
        done = form.save_with(
            lambda: services.environment_update(
                actor=actor_of(request), environment=environment, **form.cleaned_data
            )
        )
        if done is not None:
            saved(request, f"{done} saved", done)
            return HttpResponseRedirect(reverse("catalog:environment-list"))
    context = {"form": form, "environment": environment}
    return form_page(request, "catalog/environment_form.html", context)


@require_POST
@requires(Role.ADMIN)
def environment_delete(request: HttpRequest, slug: str) -> HttpResponse:
    environment = get_object_or_404(Environment, slug=slug)
    edit = reverse("catalog:environment-edit", args=[slug])
    if not name_was_typed(request, environment.name):
        return HttpResponseRedirect(edit)
    return act(
        request,
        lambda: services.environment_delete(actor=actor_of(request), environment=environment),
        done=f"{environment} deleted.",
        url=reverse("catalog:environment-list"),
        otherwise=edit,
    )
