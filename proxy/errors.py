"""Failures of providers -> the contract's error classes, with secrets scrubbed from texts."""

import json
import re
from collections.abc import Iterable

ERROR_TEXT_MAX_CHARS = 500
_LINE_MAX_CHARS = 2000
_SPEECHLESS = "The call failed without a message."

# Files of this machine, which LiteLLM's messages can name; never a path within a URL.
_FILE = re.compile(
    r'File "[^"]*"(?:, line \d+)?(?:, in \S+)?'
    r"|(?<![\w/:.])(?:/[\w.@+-]+)+\.(?:pyc?|so|pem|crt|key|json|ya?ml)\b(?::\d+)?"
    r"|(?<![\w/:.])/(?:app|etc|home|opt|root|srv|tmp|usr|var)/[\w.@+/-]+"
)

# Looks like a credential of some kind: ours, OpenAI's, Google's, AWS', a bearer token.
_KEY_LIKE = re.compile(
    r"sk-[A-Za-z0-9_\-*.]{6,}"
    r"|AIza[0-9A-Za-z_\-]{10,}"
    r"|(?:AKIA|ASIA)[0-9A-Z]{12,}"
    r"|(?i:bearer)\s+[A-Za-z0-9._~+/\-]{8,}=*"
    r"|(?i:(?:api[-_]?key|token|secret|password)[\"']?\s*[=:]\s*[\"']?)[^\s\"',}]{6,}"
    r"|\b[A-Za-z0-9_]{3,}\*{3,}[A-Za-z0-9_]*"
)

_BY_CLASS_NAME = {
    "AuthenticationError": "authentication",
    "PermissionDeniedError": "authentication",
    "NotFoundError": "not_found",
    "ContextWindowExceededError": "context_window",
    "ContentPolicyViolationError": "content_policy",
    "BudgetExceededError": "quota",
    "RateLimitError": "rate_limit",
    "Timeout": "timeout",
    "APITimeoutError": "timeout",
    "APIConnectionError": "connection",
    "ServiceUnavailableError": "overloaded",
    "BadGatewayError": "server_error",
    "InternalServerError": "server_error",
    "MidStreamFallbackError": "cut_stream",
    "BadRequestError": "invalid_request",
    "UnsupportedParamsError": "invalid_request",
    "UnprocessableEntityError": "invalid_request",
    "JSONSchemaValidationError": "invalid_request",
}
_BY_STATUS = {
    400: "invalid_request",
    401: "authentication",
    403: "authentication",
    404: "not_found",
    408: "timeout",
    413: "invalid_request",
    422: "invalid_request",
    429: "rate_limit",
    503: "overloaded",
    504: "timeout",
    529: "overloaded",
}
_QUOTA = re.compile(r"(?i)insufficient[_ ]quota|exceeded your current quota|billing|credit balance")
_CONTEXT = re.compile(r"(?i)context[_ ](?:length|window)|maximum context|prompt is too long")
_POLICY = re.compile(r"(?i)content[_ ](?:policy|filter|management)|responsibleai|safety system")
_CUT = re.compile(r"(?i)payload is not completed|incomplete chunked read")
_BROKEN = re.compile(
    r"(?i)peer closed connection|server disconnected|cannot connect to host"
    r"|connection (?:reset|closed|error|refused)"
)
_SILENT = re.compile(r"(?i)timeout on reading data|read timed? ?out|timed out")
_OVERLOADED = re.compile(r"(?i)overloaded")
_NO_DEPLOYMENT = re.compile(r"(?i)no deployments available|no healthy deployment")


_WRAPPING = re.compile(
    r"^(?:litellm\.\w+: |Timeout Error: |\w+(?:Error|Exception|Timeout): )*"
    r"(?:\w+Exception (?:\w+ )?- )?"
)
_ADVICE = re.compile(r"\s*LiteLLM: model group .*|\s*Received Model Group=.*", re.DOTALL)

# Codes that OpenAI's clients know; elsewhere the class itself is the code.
_CODES = {
    "quota": "insufficient_quota",
    "rate_limit": "rate_limit_exceeded",
    "context_window": "context_length_exceeded",
    "content_policy": "content_policy_violation",
    "not_found": "not_found",
    "authentication": "provider_authentication",
}
_TYPES = {
    "quota": "insufficient_quota",
    "rate_limit": "rate_limit_error",
    "context_window": "invalid_request_error",
    "content_policy": "invalid_request_error",
    "invalid_request": "invalid_request_error",
    "not_found": "invalid_request_error",
}


def code_of(error_class: str) -> str:
    """`code` of an OpenAI-shaped error."""
    return _CODES.get(error_class, error_class)


def type_of(error_class: str) -> str:
    """`type` of an OpenAI-shaped error."""
    return _TYPES.get(error_class, "server_error")


def words_of_provider(text: str) -> str:
    """The provider's own sentence, without the wrapping LiteLLM puts around it."""
    text = _ADVICE.sub("", text)
    text = _WRAPPING.sub("", text)
    try:
        document = json.loads(text)
    except ValueError:
        return text
    error = document.get("error", document) if isinstance(document, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) and message else text


def class_of_exception(error: BaseException) -> str:
    """Error class of an exception that LiteLLM raised for an attempt."""
    text = str(error)
    name = type(error).__name__
    status = status_of_exception(error)
    if status == 529:
        return "overloaded"
    if status in (401, 403):
        return refine(class_of_status(status), text)  # LiteLLM calls some of them bad requests
    known = _BY_CLASS_NAME.get(name)
    return refine(known or _class_of_name(error) or class_of_status(status or 500), text)


def _class_of_name(error: BaseException) -> str | None:
    for parent in type(error).__mro__:
        if parent.__name__ in _BY_CLASS_NAME:
            return _BY_CLASS_NAME[parent.__name__]
    return None


def status_of_exception(error: BaseException) -> int | None:
    """HTTP status the provider answered with, when there was one."""
    status = getattr(error, "status_code", None)
    try:
        number = int(status) if status is not None else None
    except (TypeError, ValueError):
        return None
    return number if number is not None and 100 <= number < 600 else None


def class_of_status(status: int) -> str:
    """Error class of an HTTP status alone."""
    return _BY_STATUS.get(status, "server_error" if status >= 500 else "invalid_request")


def refine(error_class: str, text: str) -> str:
    """Sharpen a class with the provider's words where its status is ambiguous."""
    if _NO_DEPLOYMENT.search(text):
        return "overloaded"
    if error_class in ("server_error", "connection"):
        if _CUT.search(text):
            return "cut_stream"
        if _SILENT.search(text):
            return "timeout"
        if _BROKEN.search(text):
            return "connection"
        if _OVERLOADED.search(text):
            return "overloaded"
    if error_class == "rate_limit" and _QUOTA.search(text):
        return "quota"
    if error_class == "invalid_request":
        if _CONTEXT.search(text):
            return "context_window"
        if _POLICY.search(text):
            return "content_policy"
    return error_class


def scrub(text: str, secrets: Iterable[str] = ()) -> str:
    """Text without the given secret values and without anything that looks like a key."""
    for secret in secrets:
        text = text.replace(secret, "[secret]")
    return _KEY_LIKE.sub("[secret]", text)


def error_text(text: str, secrets: Iterable[str] = ()) -> str:
    """One line for an event: unwrapped, scrubbed, without traceback and file paths."""
    # Scrubbed before it is cut: a part of a secret would not be recognised.
    told = scrub(words_of_provider(text), secrets).partition("Traceback")[0].strip()
    line = told.partition("\n")[0].strip()[:_LINE_MAX_CHARS]
    return _FILE.sub("[path]", line)[:ERROR_TEXT_MAX_CHARS] or _SPEECHLESS
