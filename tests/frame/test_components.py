"""Components as a page uses them: rendered by the template engine with their own tags."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from django import forms
from django.template import engines
from django.test import RequestFactory


def render(text: str, **context: Any) -> str:
    return str(engines["django"].from_string(text).render(context))


def render_for(query: str, text: str, **context: Any) -> str:
    request = RequestFactory().get("/keys/" + query)
    return str(engines["django"].from_string(text).render(context, request))


class Credential(forms.Form):
    name = forms.CharField(help_text="Shown in lists.")
    endpoint = forms.URLField(required=False, assume_scheme="https")
    api_key = forms.CharField(label="API key", required=False, widget=forms.PasswordInput)


class Filters(forms.Form):
    period = forms.ChoiceField(
        choices=[("24h", "24 h"), ("7d", "7 days")], initial="7d", widget=forms.RadioSelect
    )
    team = forms.ChoiceField(choices=[("", "All"), ("search", "Search")], required=False)


def test_a_field_is_tied_to_its_help_and_its_error() -> None:
    html = render("{% field form.name %}", form=Credential({"name": ""}))
    assert 'aria-describedby="id_name-help id_name-error"' in html
    assert 'aria-invalid="true"' in html
    assert re.search(r'id="id_name-error"[^>]*>.*This field is required', html, re.S)
    assert '<label class="gw-label" for="id_name">' in html


def test_a_control_alone_is_styled() -> None:
    html = render('{% widget form.name autocomplete="off" %}', form=Credential())
    assert 'class="form-control"' in html
    assert 'autocomplete="off"' in html


def test_optional_fields_say_so_and_required_ones_do_not() -> None:
    assert "optional" in render("{% field form.endpoint %}", form=Credential())
    assert "optional" not in render("{% field form.name %}", form=Credential())


def test_a_stored_secret_is_told_by_date_and_ending_only() -> None:
    html = render(
        '{% secret_field form.api_key set_at=at hint="x9Q2" %}',
        form=Credential({"name": "a", "api_key": "sk-typed-before"}),
        at=datetime(2026, 11, 3, tzinfo=UTC),
    )
    assert "Set on 3 Nov 2026" in html
    assert "…x9Q2" in html
    assert "sk-typed-before" not in html


def test_a_form_with_errors_names_the_fields() -> None:
    html = render("{% fields form %}", form=Credential({"endpoint": "not an address"}))
    assert '<a href="#id_name">Name</a>: This field is required.' in html
    assert 'role="alert"' in html


@pytest.mark.parametrize("state", ["active", "degraded", "rejected", "draft", "never heard of"])
def test_a_state_has_an_icon_and_a_word(state: str) -> None:
    html = render("{% status state %}", state=state)
    assert "<use href=" in html
    assert state.capitalize() in html


def test_zero_none_and_unknown_look_different() -> None:
    text = '{% number value "money" %}'
    zero, absent = render(text, value=Decimal(0)), render(text, value=None)
    assert "$0.00" in zero
    assert "unpriced" in absent
    assert "not measured" in render('{% number v "duration" missing="not measured" %}', v=None)


def test_all_digits_are_on_hover() -> None:
    assert 'title="12,345"' in render('{% number 12345 "compact" %}')


def test_a_fall_of_errors_is_good_and_of_requests_is_not() -> None:
    assert "gw-tone-ok" in render('{% delta 1 2 good="down" %}')
    assert "gw-tone-bad" in render('{% delta 1 2 good="up" %}')
    assert "no earlier figure" in render("{% delta 1 0 %}")


def test_text_from_people_is_escaped_everywhere() -> None:
    evil = "<script>alert(1)</script>"
    html = render(
        "{% status v %}{% copy_field v v %}{% secret_once v %}{% copy_button v %}"
        '{% confirm url="/x" label=v title=v text=v type=v %}{% empty "nothing" v v %}'
        "{% stat v v hint=v %}{% dialog id='d' title=v %}{{ v }}{% enddialog %}"
        "{% snippets items %}",
        v=evil,
        items=[{"label": evil, "code": evil}],
    )
    assert "<script>" not in html


def test_active_filters_are_chips_that_remove_themselves() -> None:
    html = render_for(
        "?period=24h&team=search&cursor=abc",
        "{% filter_bar form %}",
        form=Filters({"period": "24h", "team": "search"}),
    )
    assert 'href="/keys/?team=search"' in html
    assert 'href="/keys/?period=24h"' in html
    assert "Clear all" in html


def test_a_filter_at_its_default_is_chosen_and_no_chip() -> None:
    html = render_for("", "{% filter_bar form %}", form=Filters({}))
    assert re.search(r'value="7d"[^>]*checked', html)
    assert "gw-chip-clear" not in html
    assert "Remove filter" not in html


def test_the_csv_keeps_the_filters() -> None:
    html = render_for("?team=search", '{% filter_bar form csv="/keys.csv" %}', form=Filters({}))
    assert 'href="/keys.csv?team=search"' in html


def test_to_destroy_the_name_is_typed() -> None:
    html = render('{% confirm url="/x/" label="Delete key" title="Delete?" type="ci" %}')
    assert 'data-type-to-confirm="ci"' in html
    assert re.search(r'type="submit"[^>]* disabled', html)


def test_a_gap_in_a_series_is_a_gap_in_the_line() -> None:
    assert render("{% sparkline v %}", v=[1, 2, None, 3, 4]).count("M") == 2
    assert "<svg" not in render("{% sparkline v %}", v=[None, 1])


@pytest.mark.parametrize(("value", "tone"), [(10, "plain"), (85, "warn"), (120, "bad")])
def test_a_budget_bar_warns_past_its_soft_limit(value: int, tone: str) -> None:
    assert f"gw-bar-{tone}" in render("{% bar v 100 soft=80 %}", v=value)


def test_a_chart_of_the_same_address_has_the_same_id() -> None:
    text = '{% chart url="/cost/data/?team=a" title="Spend" %}'
    assert render(text) == render(text)
