"""Pages of teams and their members."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from gateway_admin.accounts.roles import Role, is_admin, requires
from gateway_admin.keys import queries, team_services
from gateway_admin.keys.forms import MemberForm, NewTeamForm, TeamForm
from gateway_admin.keys.models import Membership, Team
from gateway_admin.keys.rule_pages import rule_cards, tightest
from gateway_admin.keys.subjects import Subject, subject_for
from gateway_admin.keys.views import actor_of, environment_of
from gateway_admin.lib.errors import Conflict
from gateway_admin.lib.forms import errors_shown_by

KEYS_SHOWN = 10


@require_GET
def team_list(request: HttpRequest) -> HttpResponse:
    person = actor_of(request)
    teams = list(queries.team_list(person))
    subjects = [subject_for(team, environment_of(request)) for team in teams]
    for team, balance in zip(teams, tightest(subjects), strict=True):
        team.balance = balance  # type: ignore[attr-defined]
    context = {"teams": teams, "may_create": is_admin(person)}
    return render(request, "keys/team_list.html", context)


@require_http_methods(["GET", "POST"])
@requires(Role.ADMIN)
def team_create(request: HttpRequest) -> HttpResponse:
    form = NewTeamForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        with errors_shown_by(form):
            team = team_services.team_create(actor=actor_of(request), **form.cleaned_data)
        if form.is_valid():
            messages.success(request, f"Team {team} is there. Add its members.")
            return redirect("keys:team-detail", slug=team.slug)
    status = 422 if form.errors else 200
    return render(request, "keys/team_form.html", {"form": form}, status=status)


@require_GET
def team_detail(request: HttpRequest, slug: str) -> HttpResponse:
    team = queries.team_to_see(actor_of(request), slug)
    manages = queries.managed_teams(actor_of(request)).filter(pk=team.pk).exists()
    return _team_page(request, team, MemberForm(team=team) if manages else None)


def _team_page(
    request: HttpRequest, team: Team, member_form: MemberForm | None, status: int = 200
) -> HttpResponse:
    person = actor_of(request)
    keys = queries.keys_in_state(queries.visible_keys(person).filter(team=team), "")
    context = {
        "team": team,
        "members": queries.team_members(team),
        "keys": queries.with_relations(keys)[:KEYS_SHOWN],
        "key_count": keys.count(),
        "has_keys": team.keys.exists(),
        "member_form": member_form,
        "manages": member_form is not None,
        "may_delete": is_admin(person),
        "may_block": is_admin(person),
        "issues_keys": queries.issues_keys(person),
        "roles": Membership.Role.choices,
        **rule_cards(person, _subjects(request, team)),
    }
    return render(request, "keys/team_detail.html", context, status=status)


def _subjects(request: HttpRequest, team: Team) -> list[Subject]:
    """Whose rules hold for all calls of the team in the chosen environment."""
    environment = environment_of(request)
    return [subject_for(team, environment), subject_for(environment, environment)]


@require_http_methods(["GET", "POST"])
def team_edit(request: HttpRequest, slug: str) -> HttpResponse:
    team = queries.team_to_manage(actor_of(request), slug)
    initial = {"name": team.name, "description": team.description}
    form = TeamForm(request.POST or None, initial=initial)
    if request.method == "POST" and form.is_valid():
        with errors_shown_by(form):
            team_services.team_update(actor=actor_of(request), team=team, **form.cleaned_data)
        if form.is_valid():
            messages.success(request, "Team saved.")
            return redirect("keys:team-detail", slug=slug)
    status = 422 if form.errors else 200
    context = {"form": form, "team": team}
    return render(request, "keys/team_form.html", context, status=status)


@require_POST
@requires(Role.ADMIN)
def team_delete(request: HttpRequest, slug: str) -> HttpResponse:
    team = queries.team_to_manage(actor_of(request), slug)
    if request.POST.get("confirm") != team.name:
        messages.error(request, "Nothing was deleted: type the team's name to confirm.")
        return redirect("keys:team-detail", slug=slug)
    try:
        team_services.team_delete(actor=actor_of(request), team=team)
    except Conflict as error:
        messages.error(request, error.message)
        return redirect("keys:team-detail", slug=slug)
    messages.success(request, f"Team {team} is deleted.")
    return redirect("keys:team-list")


@require_POST
def member_add(request: HttpRequest, slug: str) -> HttpResponse:
    team = queries.team_to_manage(actor_of(request), slug)
    form = MemberForm(request.POST, team=team)
    if form.is_valid():
        with errors_shown_by(form):
            team_services.member_add(actor=actor_of(request), team=team, **form.cleaned_data)
    if not form.is_valid():
        return _team_page(request, team, form, status=422)
    messages.success(request, f"{form.cleaned_data['user']} is in the team.")
    return redirect("keys:team-detail", slug=slug)


@require_POST
def member_change(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    team = queries.team_to_manage(actor_of(request), slug)
    membership = get_object_or_404(Membership, pk=pk, team=team)
    role = request.POST.get("role", "")
    if role in Membership.Role.values:
        team_services.member_change(actor=actor_of(request), membership=membership, role=role)
        messages.success(request, f"{membership.user} is {role} of the team.")
    else:
        messages.error(request, "Nothing was changed: the role is owner or member.")
    return redirect("keys:team-detail", slug=slug)


@require_POST
def member_remove(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    team = queries.team_to_manage(actor_of(request), slug)
    membership = get_object_or_404(Membership, pk=pk, team=team)
    keys = team_services.member_remove(actor=actor_of(request), membership=membership)
    stay = f" {keys} of their keys stay with the team." if keys else ""
    messages.success(request, f"{membership.user} left the team.{stay}")
    if membership.user == request.user:
        return redirect("keys:team-list")
    return redirect("keys:team-detail", slug=slug)
