"""Pages: what a publish changes and how far it came, the history, the replicas."""

from typing import Any, cast

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from gateway_admin.accounts.models import User
from gateway_admin.accounts.roles import Role, requires
from gateway_admin.catalog.models import Environment
from gateway_admin.fleet import queries, services
from gateway_admin.fleet.forms import PublishForm, RollbackForm
from gateway_admin.fleet.models import Revision
from gateway_admin.fleet.presentation import grouped, replica_views, rollout_view
from gateway_admin.keys.policies import current_version
from gateway_admin.lib.forms import errors_shown_by
from gateway_admin.lib.keyset import Order, page_of

admins_only = requires(Role.ADMIN)
HISTORY_SIZE = 20


@require_http_methods(["GET", "POST"])
@admins_only
def publish(request: HttpRequest) -> HttpResponse:
    """The draft against the active revision; POST publishes what was read."""
    environment = _environment(request)
    state = queries.draft_state(environment)
    form = PublishForm(request.POST or None, initial={"digest": state.digest})
    if request.method == "POST" and form.is_valid():
        if form.cleaned_data["digest"] != state.digest:
            text = "The draft changed while you read it. This is what a publish would do now."
            form = PublishForm(initial={**form.cleaned_data, "digest": state.digest})
            return _publish_page(request, state, form, stale=text)
        with errors_shown_by(form):
            revision = services.revision_publish(
                environment=environment,
                actor=_actor(request),
                comment=form.cleaned_data["comment"],
                expected_digest=state.digest,
            )
        if form.is_valid():
            messages.success(request, f"Revision {revision.number} is published.")
            return redirect("fleet:publish")
    return _publish_page(request, state, form)


def _publish_page(
    request: HttpRequest, state: queries.DraftState, form: PublishForm, *, stale: str = ""
) -> HttpResponse:
    environment = _environment(request)
    history = page_of(
        queries.revisions_of(environment),
        order=Order("number", descending=True),
        query=request.GET,
        size=HISTORY_SIZE,
        path=request.path,
    )
    context = {
        "environment": environment,
        "state": state,
        "groups": grouped(state.changes, environment),
        "warnings": state.draft.warnings,
        "form": form,
        "stale": stale,
        "history": history,
        "view": rollout_view(queries.rollout_of(state.active)) if state.active else None,
    }
    if _wants_history(request):
        return render(request, "fleet/publish.html#history", context)
    status = 409 if stale else 422 if form.errors else 200
    return render(request, "fleet/publish.html", context, status=status)


@require_GET
@admins_only
@never_cache
def rollout(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """How far a revision has come; asks again by itself."""
    revision = _revision(slug, number)
    view = rollout_view(queries.rollout_of(revision))
    context = {"view": view, "was": request.GET.get("was", "")}
    return render(request, "fleet/rollout.html", context)


@require_GET
@admins_only
@never_cache
def pending_count(request: HttpRequest) -> HttpResponse:
    """How many changes wait, for the sidebar: a span or nothing."""
    count = queries.pending_count(_environment(request))
    return render(request, "fleet/pending.html", {"count": count})


@require_GET
@admins_only
def revision_detail(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    revision = _revision(slug, number)
    if away := _in_environment(request, revision):
        return away
    changes = queries.changes_of(revision)
    context = {
        "revision": revision,
        "changes": changes,
        "groups": grouped(changes, revision.environment),
        "view": rollout_view(queries.rollout_of(revision)),
        "active": queries.active_revision(revision.environment),
    }
    return render(request, "fleet/revision_detail.html", context)


@require_http_methods(["GET", "POST"])
@admins_only
def revision_rollback(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Show what going back changes; POST does it."""
    revision = _revision(slug, number)
    if away := _in_environment(request, revision):
        return away
    form = RollbackForm(request.POST or None, environment=revision.environment)
    if request.method == "POST" and form.is_valid():
        with errors_shown_by(form):
            published = services.revision_rollback(
                revision=revision, actor=_actor(request), comment=form.cleaned_data["comment"]
            )
        if form.is_valid():
            text = f"Revision {published.number} is published with the content of {number}."
            messages.success(request, text)
            return redirect("fleet:publish")
    active = queries.active_revision(revision.environment)
    changes = queries.changes_between(active, revision)
    context = {
        "revision": revision,
        "active": active,
        "changes": changes,
        "groups": grouped(changes, revision.environment),
        "unpublished": queries.pending_count(revision.environment),
        "form": form,
    }
    status = 422 if form.errors else 200
    return render(request, "fleet/rollback.html", context, status=status)


@require_GET
@admins_only
@never_cache
def replica_list(request: HttpRequest) -> HttpResponse:
    environment = _environment(request)
    active = queries.revisions_of(environment).first()
    views = replica_views(
        queries.replicas_of(environment), desired=active.number if active else None
    )
    context = {
        "environment": environment,
        "active": active,
        "replicas": views,
        "policy_version": current_version(environment),
        "as_of": timezone.now(),
    }
    fragment = "#replicas" if _is_fragment(request) else ""
    return render(request, f"fleet/replicas.html{fragment}", context)


@require_POST
@admins_only
@never_cache
def identity_reveal(request: HttpRequest) -> HttpResponse:
    """What a new replica needs, shown on demand; who asked is audited."""
    identity = services.identity_reveal(environment=_environment(request), actor=_actor(request))
    context = {"environment": _environment(request), "identity": identity}
    return render(request, "fleet/identity.html", context)


@require_POST
@admins_only
def token_rotate(request: HttpRequest) -> HttpResponse:
    environment = _environment(request)
    keep = request.POST.get("previous") != "refuse"
    services.token_rotate(environment=environment, actor=_actor(request), keep_previous=keep)
    until = "The previous one is accepted for another 24 hours." if keep else "The old one is dead."
    messages.success(request, f"{environment} has a new fleet token. {until}")
    return redirect("fleet:replica-list")


def _environment(request: HttpRequest) -> Environment:
    return cast(Environment, cast(Any, request).environment)


def _actor(request: HttpRequest) -> User:
    return cast(User, request.user)


def _revision(slug: str, number: int) -> Revision:
    rows = Revision.objects.select_related("environment", "published_by")
    return get_object_or_404(rows, environment__slug=slug, number=number)


def _in_environment(request: HttpRequest, revision: Revision) -> HttpResponse | None:
    """The frame shows the environment that the page is about: switch to it where it differs."""
    slug = revision.environment.slug
    if _environment(request).slug == slug or request.method != "GET":
        return None
    return redirect(f"{request.path}?environment={slug}")


def _is_fragment(request: HttpRequest) -> bool:
    return bool(cast(Any, request).htmx)


def _wants_history(request: HttpRequest) -> bool:
    return _is_fragment(request) and cast(Any, request).htmx.target == "history"
