"""Which tone and icon a state has: never colour alone."""

from __future__ import annotations

_STATES = {
    "ok": (
        "circle-check",
        "active healthy in_sync in_force acknowledged applied published succeeded success ok "
        "working online enabled priced current",
    ),
    "warn": (
        "alert-triangle",
        "degraded behind expiring stale pending unpriced late half_open slow partial silent",
    ),
    "bad": (
        "circle-x",
        "rejected failed failure error revoked broken down offline unhealthy open refused timeout",
    ),
    "info": ("circle-dashed", "draft publishing estimated running new changed testing added"),
    "quiet": (
        "circle-minus",
        "disabled blocked expired unknown never archived inactive superseded aborted abandoned "
        "removed unused",
    ),
}
_TONES = {
    state: (tone, icon) for tone, (icon, states) in _STATES.items() for state in states.split()
}


def tone_of(state: str) -> tuple[str, str]:
    """Tone (ok, warn, bad, info, quiet) and icon of a state; unknown words are quiet.

    A tone's own name is also understood, so pages can choose one: `{% status "warn" "Slow" %}`.
    """
    key = state.lower().replace(" ", "_").replace("-", "_")
    if key in _STATES:
        return key, _STATES[key][0]
    return _TONES.get(key, ("quiet", "circle-minus"))
