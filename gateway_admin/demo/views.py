"""The page that removes the demonstration."""

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import logout
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from gateway_admin.accounts.models import Organisation, User
from gateway_admin.accounts.roles import Role, requires
from gateway_admin.accounts.services import has_administrator, setup_link_create
from gateway_admin.demo.queries import removal_facts
from gateway_admin.demo.removal import demo_remove

CONFIRM_WORD = "demonstration"


@never_cache
@require_http_methods(["GET", "POST"])
@requires(Role.ADMIN)
def remove(request: HttpRequest) -> HttpResponse:
    """Say what goes; on a POST with the typed word remove it."""
    assert isinstance(request.user, User)  # the middleware lets nobody else through
    if Organisation.objects.get().demo_since is None:
        raise Http404("There is no demonstration here.")
    if request.method == "POST" and request.POST.get("confirm", "").strip() == CONFIRM_WORD:
        return _removed(request, request.user)
    if request.method == "POST":
        messages.error(request, f"Nothing was removed: type “{CONFIRM_WORD}” to confirm.")
    context = {
        **removal_facts(request.user),
        "word": CONFIRM_WORD,
        "url": reverse("demo:remove"),
    }
    return render(request, "demo/remove.html", context)


def _removed(request: HttpRequest, person: User) -> HttpResponse:
    is_invented = person.is_demo
    if is_invented:
        logout(request)  # while the account is still there
    removed = demo_remove(data_dir=settings.DATA_DIR, actor=person)
    if not is_invented:
        for name in removed.unpublished:
            messages.warning(request, f"{name} has edits that wait for a publish.")
        messages.success(request, f"Removed {removed.events:,} events and {removed.keys} keys.")
        return redirect("dashboards:overview")
    link = None
    if not has_administrator():
        link = reverse("accounts:setup", args=[setup_link_create()])
    return render(request, "demo/removed.html", {"removed": removed, "link": link})
