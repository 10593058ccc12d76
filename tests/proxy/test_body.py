"""Bodies: forms are cut exactly, metadata is filtered, errors are scrubbed."""

import pytest

from proxy.body import clean_form, clean_json, form_fields, parse_form, write_form
from proxy.errors import refine, scrub
from proxy.refusals import Refusal
from proxy.routes import INFERENCE

CHAT = INFERENCE[b"/v1/chat/completions"]
MESSAGES = INFERENCE[b"/v1/messages"]


def form(*parts: tuple[str, bytes], boundary: str = "b0und") -> bytes:
    body = b""
    for disposition, content in parts:
        head = f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n"
        body += head.encode() + content + b"\r\n"
    return body + f"--{boundary}--\r\n".encode()


def test_form_round_trip_keeps_files_byte_for_byte() -> None:
    audio = bytes(range(256)) * 3 + b"\r\n--not the boundary\r\n"
    raw = form(('name="model"', b"alias"), ('name="file"; filename="a.wav"', audio))
    boundary, parts = parse_form(raw, 'multipart/form-data; boundary="b0und"')
    assert form_fields(parts) == {"model": "alias"}
    written = write_form(boundary, clean_form(parts), "real")
    _, again = parse_form(written, "multipart/form-data; boundary=b0und")
    assert form_fields(again) == {"model": "real"}
    assert again[1].raw.partition(b"\r\n\r\n")[2] == audio


def test_repeated_model_fields_become_one() -> None:
    raw = form(('name="model"', b"one"), ('name="model"', b"two"))
    boundary, parts = parse_form(raw, "multipart/form-data; boundary=b0und")
    written = write_form(boundary, parts, "two")
    assert written.count(b'name="model"') == 1


@pytest.mark.parametrize(
    "name", ["api_base", "metadata[api_base]", "litellm_metadata[x]", "fallbacks", "_target_order"]
)
def test_form_fields_that_steer(name: str) -> None:
    _, parts = parse_form(form((f'name="{name}"', b"x")), "multipart/form-data; boundary=b0und")
    try:
        kept = clean_form(parts)
    except Refusal:
        kept = []
    assert kept == []


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"--b0und\r\n",
        b"--b0und\r\nX: y\r\n\r\nz\r\n--b0und--",
    ],
)
def test_broken_forms_are_refused(raw: bytes) -> None:
    with pytest.raises(Refusal):
        parse_form(raw, "multipart/form-data; boundary=b0und")


def test_metadata_is_filtered() -> None:
    body = {
        "metadata": {
            "order": "17",
            "tags": ["x"],
            "user_api_key_user_id": "admin",
            "trace_id": "x",
            "model_info": "x",
            "nested": {"api_base": "x"},
            "guardrails": "off",
        }
    }
    clean_json(body, CHAT)
    assert body["metadata"] == {"order": "17"}


def test_anthropic_metadata_keeps_the_user() -> None:
    body = {"metadata": {"user_id": "u1", "tags": "x"}}
    clean_json(body, MESSAGES)
    assert body["metadata"] == {"user_id": "u1"}


@pytest.mark.parametrize(
    "text",
    [
        "Incorrect API key provided: sk-proj-abcdefgh12345678",
        "key AIzaSyA1234567890abcdefghij is bad",
        "AKIAIOSFODNN7EXAMPLE",
        "Authorization: Bearer abcdefghijklmnop",
        'api_key="super-secret-value"',
        "sk-gw-abc-secretsecret",
        "Incorrect API key provided: abcd******wxyz",
    ],
)
def test_what_looks_like_a_key_is_scrubbed(text: str) -> None:
    assert "[secret]" in scrub(text)


def test_known_secrets_are_scrubbed_whatever_they_look_like() -> None:
    assert scrub("plain words here", ["words"]) == "plain [secret] here"


@pytest.mark.parametrize(
    ("before", "text", "after"),
    [
        ("rate_limit", "You exceeded your current quota", "quota"),
        ("invalid_request", "maximum context length is 8192", "context_window"),
        ("invalid_request", "violates our content policy", "content_policy"),
        ("rate_limit", "No deployments available for selected model", "overloaded"),
        ("server_error", "The model is currently overloaded", "overloaded"),
        ("server_error", "boom", "server_error"),
    ],
)
def test_error_classes_are_sharpened(before: str, text: str, after: str) -> None:
    assert refine(before, text) == after
