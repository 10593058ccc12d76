"""Components of every page as template tags; parameters are listed in `docs/ui.md`.

The library is a builtin of the template engine: no `{% load %}` needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Any, cast
from zlib import crc32

from django import forms, template
from django.forms import BoundField
from django.http import QueryDict
from django.templatetags.static import static
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from .. import formats, svg
from ..states import tone_of

register = template.Library()

register.filter("money", formats.money)
register.filter("money_exact", formats.money_exact)
register.filter("count", formats.count)
register.filter("compact", formats.compact)
register.filter("duration", formats.duration)
register.filter("percent", formats.percent)
register.filter("day", formats.day)
register.filter("clock", formats.clock)


@register.simple_tag
def icon(name: str, size: int = 16, label: str = "", css: str = "") -> SafeString:
    """An icon of the sprite; decorative unless `label` names it."""
    aria = format_html('role="img" aria-label="{}"', label) if label else 'aria-hidden="true"'
    return format_html(
        '<svg class="gw-icon {}" width="{}" height="{}" {}><use href="{}#{}"></use></svg>',
        css,
        size,
        size,
        mark_safe(aria),  # noqa: S308 - either escaped above or a constant
        static("vendor/icons/sprite.svg"),
        name,
    )


@register.simple_tag
def number(value: formats.Number | None, kind: str = "count", missing: str = "") -> SafeString:
    """A figure in the given kind with all its digits on hover.

    `kind` is money, money_exact, count, compact, duration or percent; `missing` replaces the
    word for an absent value.
    """
    if value is None:
        word = missing or (formats.UNPRICED if kind.startswith("money") else formats.ABSENT)
        return format_html('<span class="gw-absent">{}</span>', word)
    text = getattr(formats, kind)(value)
    unit = " ms" if kind == "duration" else ""
    return format_html('<span title="{}{}">{}</span>', formats.exact(value), unit, text)


@register.simple_tag
def timestamp(value: datetime | date | None, mode: str = "ago", missing: str = "") -> SafeString:
    """A time with the full one on hover. `mode`: ago (kept current), clock, day or time."""
    if value is None:
        return format_html(
            '<span class="gw-absent">{}</span>', missing or ("never" if mode == "ago" else "–")
        )
    if not isinstance(value, datetime):
        return format_html('<time datetime="{}">{}</time>', value.isoformat(), formats.day(value))
    local = timezone.localtime(value)
    text = {
        "ago": lambda: formats.ago(value),
        "clock": lambda: formats.clock(value),
        "day": lambda: formats.day(value),
        "time": lambda: f"{local:%H:%M:%S}",
    }[mode]()
    live = mark_safe(" data-relative") if mode == "ago" else ""
    return format_html(
        '<time datetime="{}" title="{} {}"{}>{}</time>',
        local.isoformat(),
        formats.clock(value),
        timezone.get_current_timezone_name(),
        live,
        text,
    )


@register.simple_tag
def delta(
    current: formats.Number | None, previous: formats.Number | None, good: str = "none"
) -> SafeString:
    """Change against a former value, with arrow, sign and colour. `good`: up, down or none."""
    ratio = formats.change(current, previous)
    if ratio is None:
        return mark_safe('<span class="gw-delta">no earlier figure</span>')
    direction = "up" if ratio > 0.0005 else "down" if ratio < -0.0005 else "flat"
    tone = "" if good == "none" or direction == "flat" else ("ok" if direction == good else "bad")
    arrow = {"up": "arrow-up-right", "down": "arrow-down-right", "flat": "arrow-right"}[direction]
    sign = {"up": "+", "down": "−", "flat": "±"}[direction]
    return format_html(
        '<span class="gw-delta gw-tone-{}">{}{}{}</span>',
        tone or "quiet",
        icon(arrow, 14),
        sign,
        formats.percent(abs(ratio)),
    )


@register.simple_tag
def status(state: str, label: str = "", title: str = "") -> SafeString:
    """A badge for a state: its tone and icon come from `states.py`, its word from `label`."""
    tone, icon_name = tone_of(state)
    word = label or state.replace("_", " ").replace("-", " ").lower()
    return format_html(
        '<span class="gw-badge gw-tone-{}" title="{}">{}{}</span>',
        tone,
        title,
        icon(icon_name, 14),
        word[:1].upper() + word[1:],
    )


@register.simple_tag
def environment_badge(environment: Any) -> SafeString:
    """An environment's name with a dot in its colour."""
    return format_html(
        '<span class="gw-env"><span class="gw-dot gw-env-{}"></span>{}</span>',
        environment.colour,
        environment.name,
    )


@register.simple_tag
def sparkline(values: Sequence[float | None], label: str = "", width: int = 96) -> SafeString:
    """A small line of a series; `label` says in words what it shows."""
    return svg.sparkline(values, label=label, width=width)


@register.simple_tag
def bar(
    value: formats.Number,
    maximum: formats.Number,
    held: formats.Number = 0,
    soft: formats.Number | None = None,
    label: str = "",
) -> SafeString:
    """A share as a bar: `value` and `held` of `maximum`, a tick at `soft`."""
    return svg.bar(float(value), float(maximum), float(held), soft, label=label)


@register.inclusion_tag("partials/stat.html")
def stat(
    label: str,
    value: str,
    *,
    current: formats.Number | None = None,
    previous: formats.Number | None = None,
    good: str = "none",
    against: str = "",
    series: Sequence[float | None] = (),
    hint: str = "",
    href: str = "",
    tone: str = "",
    icon: str = "",
) -> dict[str, Any]:
    """A stat card: see the head of `partials/stat.html`."""
    return locals()


@register.inclusion_tag("partials/empty.html")
def empty(
    kind: str,
    title: str,
    text: str = "",
    *,
    action: str = "",
    url: str = "",
    icon: str = "",
) -> dict[str, Any]:
    """An empty state. `kind`: nothing, no-match, not-allowed or down."""
    icons = {"nothing": "sparkles", "no-match": "filter", "not-allowed": "lock"}
    return {
        "kind": kind,
        "title": title,
        "text": text,
        "action": action,
        "url": url,
        "icon_name": icon or icons.get(kind, "cloud-off"),
    }


@register.inclusion_tag("partials/chart.html")
def chart(
    *, url: str, title: str, id: str = "", height: int = 280, csv: str = "", lead: str = ""
) -> dict[str, Any]:
    """A chart that loads itself when it is scrolled into view: see `partials/chart.html`."""
    return {
        "url": url,
        "title": title,
        "id": id or f"chart-{crc32(url.encode()):08x}",
        "height": height,
        "csv": csv,
        "lead": lead,
    }


@register.inclusion_tag("partials/field.html")
def field(bound: BoundField, label: str = "", help: str = "", css: str = "") -> dict[str, Any]:
    """One form field: label above, help beneath, error at the field."""
    return {
        "field": bound,
        "widget": styled(bound),
        "label": label or bound.label,
        "help": help or bound.help_text,
        "kind": kind_of(bound),
        "css": css,
    }


@register.simple_tag
def widget(bound: BoundField, **attrs: str) -> SafeString:
    """Only the control of a field, styled and tied to its help and error, for own markup."""
    return styled(bound, **attrs)


@register.inclusion_tag("partials/fields.html")
def fields(form: forms.BaseForm) -> dict[str, Any]:
    """Messages of the whole form, then every visible field."""
    return {"form": form}


@register.inclusion_tag("partials/form_errors.html")
def form_errors(form: forms.BaseForm) -> dict[str, Any]:
    """What is wrong with the form as a whole, announced and linked to the fields."""
    return {"form": form}


@register.inclusion_tag("partials/secret_field.html")
def secret_field(
    bound: BoundField, set_at: datetime | None = None, hint: str = ""
) -> dict[str, Any]:
    """A write-only secret: "set on …, ends in … · Replace" once it is set."""
    return {
        "field": bound,
        "widget": styled(bound, autocomplete="off", spellcheck="false"),
        "set_at": set_at,
        "hint": hint,
        "open": bool(bound.errors) or set_at is None,
    }


@register.inclusion_tag("partials/filter_bar.html", takes_context=True)
def filter_bar(
    context: template.Context, form: forms.BaseForm, target: str = "", csv: str = ""
) -> dict[str, Any]:
    """Filters of a list: fields that apply themselves, removable chips, all in the URL."""
    request = context["request"]
    if form.is_bound:
        form.data = with_defaults(form)
    return {
        "form": form,
        "bounds": [
            (bound, styled(bound), kind_of(bound), bound.field.initial or "")
            for bound in form.visible_fields()
        ],
        "chips": chips_of(form, request.GET),
        "target": target,
        "csv": csv,
        "path": request.path,
        "query": request.GET.urlencode(),
    }


@register.inclusion_tag("partials/pager.html")
def pager(
    next_url: str = "",
    previous_url: str = "",
    first_url: str = "",
    text: str = "",
    target: str = "",
) -> dict[str, Any]:
    """Keyset pager: newer and older, or next and previous; empty addresses are disabled."""
    return locals()


@register.inclusion_tag("partials/tabs.html")
def tabs(items: Iterable[dict[str, Any]], label: str = "Sections") -> dict[str, Any]:
    """Tabs as links: items are `{"label", "url", "active", "count"}`, at most five."""
    return {"items": list(items), "label": label}


@register.inclusion_tag("partials/copy_field.html")
def copy_field(value: str, label: str, help: str = "") -> dict[str, Any]:
    """A read-only value with a copy button."""
    return locals()


@register.inclusion_tag("partials/secret_once.html")
def secret_once(value: str, label: str = "Secret") -> dict[str, Any]:
    """A secret that is shown this one time."""
    return locals()


@register.simple_tag
def copy_button(value: str, label: str = "Copy") -> SafeString:
    """A small button that copies a value."""
    return format_html(
        '<button type="button" class="gw-icon-button" data-copy="{}" aria-label="{}" title="{}">'
        "{}</button>",
        value,
        label,
        label,
        icon("copy"),
    )


@register.inclusion_tag("partials/snippets.html")
def snippets(items: Sequence[dict[str, str]], id: str = "snippets") -> dict[str, Any]:
    """Code in tabs: items are `{"label", "code"}`, see `frame.snippets.client_snippets`."""
    return {"items": items, "id": id}


@register.inclusion_tag("partials/confirm.html", takes_context=True)
def confirm(
    context: template.Context,
    *,
    url: str,
    label: str,
    title: str,
    text: str = "",
    type: str = "",
    tone: str = "danger",
    icon: str = "",
    css: str = "",
    field: str = "",
    value: str = "",
    hx: bool = False,
) -> dict[str, Any]:
    """A button that asks before it posts: see the head of `partials/confirm.html`."""
    return {
        "csrf_token": context.get("csrf_token", ""),
        "id": f"confirm-{crc32(f'{url} {label} {value}'.encode()):08x}",
        "url": url,
        "label": label,
        "title": title,
        "text": text,
        "type": type,
        "tone": tone,
        "icon_name": icon,
        "css": css,
        "field": field,
        "value": value,
        "hx": hx,
    }


@register.simple_block_tag
def dialog(content: str, id: str, title: str, size: str = "") -> SafeString:
    """A modal dialog around its content; opened by any `data-dialog="<id>"` button."""
    return format_html(
        '<dialog class="gw-dialog {}" id="{}" aria-labelledby="{}-title">'
        '<div class="gw-dialog-head"><h2 id="{}-title">{}</h2>'
        '<button type="button" class="gw-icon-button" data-close aria-label="Close">{}</button>'
        '</div><div class="gw-dialog-body">{}</div></dialog>',
        f"gw-dialog-{size}" if size else "",
        id,
        id,
        id,
        title,
        icon("x"),
        content,
    )


@register.inclusion_tag("partials/freshness.html")
def freshness(as_of: datetime | None = None, source: str = "") -> dict[str, Any]:
    """The quiet line under the content: as of when, in which zone, from what."""
    return {
        "as_of": as_of or timezone.now(),
        "zone": timezone.get_current_timezone_name(),
        "source": source,
    }


def styled(bound: BoundField, **attrs: str) -> SafeString:
    """The field's widget with Tabler's class, its error state and what describes it."""
    widget = bound.field.widget
    if isinstance(widget, forms.RadioSelect | forms.CheckboxSelectMultiple):
        css = ""  # would land on the wrapper too: styled by their container
    elif isinstance(widget, forms.CheckboxInput):
        css = "form-check-input"
    elif isinstance(widget, forms.Select):
        css = "form-select"
    else:
        css = "form-control"
    own = str(widget.attrs.get("class", ""))
    described = []
    if bound.help_text:
        described.append(f"{bound.id_for_label}-help")
    if bound.errors:
        described.append(f"{bound.id_for_label}-error")
        attrs["aria-invalid"] = "true"
        css += " is-invalid"
    if described:
        attrs["aria-describedby"] = " ".join(described)
    classes = f"{css} {own}".strip()
    if classes:
        attrs["class"] = classes
    return bound.as_widget(attrs={**attrs})


def kind_of(bound: BoundField) -> str:
    """Which layout a field needs: check, choices (radio or several), or plain."""
    widget = bound.field.widget
    if isinstance(widget, forms.CheckboxInput):
        return "check"
    if isinstance(widget, forms.RadioSelect | forms.CheckboxSelectMultiple):
        return "choices"
    return "plain"


def with_defaults(form: forms.BaseForm) -> Any:
    """The form's data with the initial value of every filter that the address leaves out."""
    data = cast(QueryDict, form.data).copy()
    for bound in form.visible_fields():
        if bound.html_name not in data and bound.field.initial not in (None, ""):
            data[bound.html_name] = bound.field.initial
    return data


def chips_of(form: forms.BaseForm, query: Any) -> list[dict[str, str]]:
    """Active filters in words, each with the query string that drops it."""
    chips = []
    for bound in form.visible_fields():
        given = [value for value in query.getlist(bound.html_name) if value]
        if not given or given == [str(bound.field.initial or "")]:
            continue
        rest = query.copy()
        for name in (bound.html_name, "cursor", "before", "after", "page"):
            rest.pop(name, None)
        names = dict(_flat_choices(getattr(bound.field, "choices", ())))
        words = ", ".join(names.get(value, value) for value in given)
        chips.append({"label": str(bound.label), "value": words, "query": rest.urlencode()})
    return chips


def _flat_choices(choices: Iterable[Any]) -> Iterable[tuple[str, str]]:
    for value, label in choices:
        if isinstance(label, list | tuple):
            yield from _flat_choices(label)
        else:
            yield str(value), str(label)
