"""Breakers in words, and the last 24 hours of each as a drawing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from gateway_admin.catalog.models import Deployment
from gateway_admin.fleet.breakers import TIMELINE, Breaker, Span, breakers_of
from gateway_admin.fleet.models import BreakerOrder, ReplicaWorker
from gateway_admin.fleet.queries import LATE_AFTER

WORDS = {"closed": "Closed", "open": "Open", "half_open": "Half-open", "off": "Not used"}
TONES = {"closed": "ok", "open": "bad", "half_open": "warn", "off": "quiet"}
# The order of the list: what needs somebody's attention first.
URGENCY = ("open", "half_open", "closed", "off")

WIDTH, HEIGHT = 1440, 24  # one unit is a minute
SEEN_MINUTES = 6  # the least that a short opening is drawn with
HEIGHTS = {"closed": 4, "half_open": 15, "open": 24}


@dataclass(frozen=True)
class Order:
    """A thing that a person can tell a breaker to do."""

    action: str
    label: str
    icon: str
    title: str
    effect: str
    tone: str = "primary"


ORDERS = {
    "open": Order(
        "open",
        "Open breaker",
        "ban",
        "Keep this deployment out?",
        "No call goes to it until somebody closes or resets its breaker. Requests go to the "
        "model's other deployments, or along its fallback chain.",
        "danger",
    ),
    "close": Order(
        "close",
        "Close breaker",
        "circle-check",
        "Let calls through again?",
        "Calls go to the deployment at once, on all replicas. If they fail, the breaker opens "
        "again by itself.",
    ),
    "reset": Order(
        "reset",
        "Reset breaker",
        "refresh",
        "Forget what was counted?",
        "Counted failures and orders by hand are forgotten; the breaker is closed as if the "
        "deployment were new.",
    ),
}


@dataclass(frozen=True)
class Band:
    """A line of the timeline's table."""

    state: str
    start: datetime
    end: datetime | None
    span: Span | None  # None: nobody ever told of it, so it was closed

    @property
    def word(self) -> str:
        return WORDS[self.state]

    @property
    def tone(self) -> str:
        return TONES[self.state]

    def lasted_ms(self, now: datetime) -> float:
        return ((self.end or now) - self.start).total_seconds() * 1000


@dataclass(frozen=True)
class BreakerView:
    """A breaker as pages show it."""

    breaker: Breaker
    has_workers: bool = True

    @property
    def deployment(self) -> Deployment:
        return self.breaker.deployment

    @property
    def word(self) -> str:
        return WORDS[self.breaker.state]

    @property
    def tone(self) -> str:
        return TONES[self.breaker.state]

    @property
    def since(self) -> datetime | None:
        return self.breaker.current.start if self.breaker.current else None

    @property
    def reason(self) -> str:
        return self.breaker.current.reason if self.breaker.current else ""

    @property
    def meaning(self) -> str:
        """What the state means for calls, in one sentence."""
        environment = self.deployment.environment
        match self.breaker.state:
            case "off":
                return (
                    f"{environment} uses no circuit breakers: failing deployments keep their calls."
                )
            case "half_open":
                calls = environment.breaker_half_open_permits
                noun = "trial call" if calls == 1 else "trial calls"
                return f"Up to {calls} {noun} at once decide whether it closes or opens again."
            case "open" if self.breaker.held_open:
                return "Kept out by hand: no call goes to it until somebody closes or resets it."
            case "open":
                return "Kept out: no call goes to it. Trial calls decide when it comes back."
        return "Calls go to it."

    @property
    def trial(self) -> str:
        """When an open breaker tries by itself; "" when it does not."""
        at = self.breaker.tries_at
        if at is None:
            return ""
        if at <= self.breaker.now:
            return "the next request is a trial call"
        return f"trial calls from {timezone.localtime(at):%H:%M:%S} on"

    @property
    def waiting(self) -> str:
        """Why an order has not shown yet; "" when none is under way."""
        if not self.breaker.awaited:
            return ""
        if not self.has_workers:
            return "No worker reports at the moment: the order is followed when one does."
        return "The order is on its way to the replicas."

    @property
    def orders(self) -> list[Order]:
        """What can be ordered now."""
        state = self.breaker.state
        if state == "off":
            return []
        found = []
        if state != "closed":
            found.append(ORDERS["close"])
        if not (state == "open" and self.breaker.held_open):
            found.append(ORDERS["open"])
        return [*found, ORDERS["reset"]]

    @property
    def last_order(self) -> BreakerOrder | None:
        return self.breaker.order

    @property
    def begin(self) -> datetime:
        return self.breaker.now - TIMELINE

    @property
    def bands(self) -> list[Band]:
        """The last 24 hours without gaps, oldest first."""
        begin = self.begin
        spans = self.breaker.spans
        found = []
        if not spans or spans[0].start > begin:
            found.append(Band("closed", begin, spans[0].start if spans else None, None))
        found += [Band(span.state, max(span.start, begin), span.end, span) for span in spans]
        return found

    @property
    def rows(self) -> list[tuple[Band, float]]:
        """For the table: newest first, with how long each lasted in milliseconds."""
        return [(band, band.lasted_ms(self.breaker.now)) for band in reversed(self.bands)]

    @property
    def marks(self) -> list[datetime]:
        """Moments to write below the drawing."""
        return [self.begin + timedelta(hours=hours) for hours in (0, 6, 12, 18)]

    @property
    def label(self) -> str:
        """The drawing in words, for whoever cannot see it."""
        opened = self.breaker.opened
        times = {0: "It did not open", 1: "It opened once"}.get(opened, f"It opened {opened} times")
        return f"{times} in the last 24 hours; {WORDS[self.breaker.state].lower()} now."

    @property
    def drawing(self) -> SafeString:
        """Bands over 24 hours: the higher, the more is kept out."""
        begin = self.begin
        drawn = sorted(self.bands, key=lambda band: HEIGHTS[band.state])  # openings on top
        shapes = (
            (band.state, *_shape(band, begin, self.breaker.now), HEIGHTS[band.state], band.word)
            for band in drawn
        )
        return format_html(
            '<svg class="fleet-timeline" viewBox="0 0 {w} {h}" preserveAspectRatio="none"'
            ' role="img" aria-label="{label}">{bands}</svg>',
            w=WIDTH,
            h=HEIGHT,
            label=self.label,
            bands=format_html_join(
                "",
                '<rect class="fleet-band-{}" x="{}" y="{}" width="{}" height="{}">'
                "<title>{}</title></rect>",
                ((s, x, HEIGHT - high, width, high, word) for s, x, width, high, word in shapes),
            ),
        )


def _shape(band: Band, begin: datetime, now: datetime) -> tuple[str, str]:
    """x and width of a band, in minutes since the beginning."""
    start = (band.start - begin).total_seconds() / 60
    width = ((band.end or now) - band.start).total_seconds() / 60
    if band.state != "closed":
        width = max(width, SEEN_MINUTES)
    start = min(start, WIDTH - width)
    return f"{start:.1f}", f"{width:.1f}"


def breaker_views(deployments: Iterable[Deployment]) -> list[BreakerView]:
    """The breakers of deployments (read with their environment)."""
    now = timezone.now()
    breakers = breakers_of(deployments, now=now)
    environments = {breaker.deployment.environment_id for breaker in breakers}
    live = set(
        ReplicaWorker.objects.filter(
            replica__environment__in=environments, last_seen_at__gte=now - LATE_AFTER
        ).values_list("replica__environment", flat=True)
    )
    return [BreakerView(b, b.deployment.environment_id in live) for b in breakers]


def breaker_view(deployment: Deployment) -> BreakerView:
    return breaker_views([deployment])[0]


def most_urgent_first(views: Sequence[BreakerView]) -> list[BreakerView]:
    return sorted(
        views,
        key=lambda view: (
            URGENCY.index(view.breaker.state),
            -view.breaker.opened,
            view.deployment.name.casefold(),
        ),
    )
