"""What stands in the sidebar and in the command palette, by role."""

from __future__ import annotations

from dataclasses import dataclass

from django.urls import NoReverseMatch, reverse

from gateway_admin.accounts.roles import Role

EVERYBODY = frozenset({Role.ADMIN, Role.FINANCE, Role.DEVELOPER})
SUPPLY_READERS = EVERYBODY
ADMINS = frozenset({Role.ADMIN})
SPENDERS = frozenset({Role.ADMIN, Role.FINANCE})


@dataclass(frozen=True)
class Entry:
    """One page of the sidebar: its title, URL name, icon, who sees it, words it is found by."""

    title: str
    url_name: str
    icon: str
    roles: frozenset[Role]
    words: str = ""


@dataclass(frozen=True)
class Group:
    """Entries that answer the same question."""

    title: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Link:
    """An entry with its address, ready for the page."""

    title: str
    url: str
    icon: str
    active: bool
    words: str
    url_name: str


GROUPS = (
    Group(
        "Operate",
        (
            Entry("Overview", "dashboards:overview", "layout-dashboard", EVERYBODY, "home health"),
            Entry("Requests", "dashboards:requests", "list-search", EVERYBODY, "log calls errors"),
            Entry("Latency", "dashboards:latency", "activity", EVERYBODY, "p95 first token slow"),
            Entry("Cache", "dashboards:cache", "database", EVERYBODY, "kept answers saved purge"),
            Entry("Breakers", "fleet:breaker-list", "power", ADMINS, "circuit open kept out"),
        ),
    ),
    Group(
        "Spend",
        (
            Entry("Cost", "dashboards:cost", "coins", EVERYBODY, "money dollars usage tokens"),
            Entry("Budgets", "keys:budget-list", "wallet", EVERYBODY, "limit spent remaining"),
        ),
    ),
    Group(
        "Supply",
        (
            Entry("Models", "catalog:model-list", "box", SUPPLY_READERS, "names prices"),
            Entry("Deployments", "catalog:deployment-list", "server-2", ADMINS, "endpoint region"),
            Entry("Credentials", "catalog:credential-list", "fingerprint", ADMINS, "api secret"),
            Entry("Providers", "catalog:provider-list", "plug-connected", ADMINS, "openai azure"),
            Entry("Chains", "catalog:chain-list", "route", ADMINS, "fallback routing"),
            Entry("Aliases", "catalog:alias-list", "replace", ADMINS, "default switch"),
            Entry("Environments", "catalog:environment-list", "stack-2", ADMINS, "dev staging"),
        ),
    ),
    Group(
        "Demand",
        (
            Entry("Teams", "keys:team-list", "users-group", EVERYBODY, "members"),
            Entry("Keys", "keys:key-list", "key", EVERYBODY, "virtual key issue revoke"),
            Entry("People", "accounts:people-list", "users", ADMINS, "users roles invite"),
            Entry("Customers", "keys:customer-list", "building", SPENDERS, "user field tenant"),
            Entry("Limits", "keys:limit-list", "gauge", EVERYBODY, "rpm tpm parallel rate"),
            Entry("Blocks", "keys:block-list", "ban", EVERYBODY, "refuse unblock"),
        ),
    ),
    Group(
        "Fleet",
        (
            Entry("Publish", "fleet:publish", "rocket", ADMINS, "draft revision roll back diff"),
            Entry("Replicas", "fleet:replica-list", "server", ADMINS, "workers sync health"),
        ),
    ),
    Group(
        "Settings",
        (
            Entry("Organisation", "accounts:settings", "settings", ADMINS, "name time zone"),
            Entry("API tokens", "accounts:token-list", "api", EVERYBODY, "rest automation"),
            Entry("Audit", "accounts:audit-list", "clipboard-list", ADMINS, "history who what"),
        ),
    ),
)


def links_for(role: Role | None, *, path: str) -> list[tuple[str, list[Link]]]:
    """Groups with the links this role may open; the entry of the current page is active."""
    groups = []
    for group in GROUPS:
        links = [_link(entry, path) for entry in group.entries if role in entry.roles]
        present = [link for link in links if link is not None]
        if present:
            groups.append((group.title, present))
    return _only_longest_active(groups)


def _link(entry: Entry, path: str) -> Link | None:
    try:
        url = reverse(entry.url_name)
    except NoReverseMatch:
        return None
    active = path == url or (url != "/" and path.startswith(url))
    return Link(entry.title, url, entry.icon, active, entry.words, entry.url_name)


def _only_longest_active(
    groups: list[tuple[str, list[Link]]],
) -> list[tuple[str, list[Link]]]:
    """`/settings/tokens/` lies below `/settings/`: only the closer entry is the current page."""
    active = [link.url for _, links in groups for link in links if link.active]
    closest = max(active, key=len, default="")
    return [
        (
            title,
            [
                Link(
                    link.title,
                    link.url,
                    link.icon,
                    link.active and link.url == closest,
                    link.words,
                    link.url_name,
                )
                for link in links
            ],
        )
        for title, links in groups
    ]
