"""The commands of admission as bytes for Redis: what does not differ is made once. Pure.

Numbers travel as doubles, which is what Lua counts in: exact up to 2^53.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from struct import Struct

import orjson

from proxy.admission_plan import Ending, Plan, Reservation
from proxy.admission_rules import BudgetRule, bounds_ms
from proxy.contract.counters import HOLD_TTL_S, epoch_key, hold_key, holds_key
from proxy.grant import Grant
from proxy.snapshot import Deployment
from proxy.trace import Trace

# Stand for what is filled in later. JSON holds no such characters.
_SECOND = "\0"  # by the script: the present second
_NUMBER, _TEXT = "\1", "\2"  # by us, for each request

ARGUMENTS = 7  # of the script that admits


def bulk(value: str | bytes) -> bytes:
    """One argument of a command."""
    raw = value.encode() if isinstance(value, str) else value
    return b"$%d\r\n%b\r\n" % (len(raw), raw)


def numbers(values: Sequence[float]) -> bytes:
    """Doubles, little-endian."""
    return Struct(f"<{len(values)}d").pack(*values)


class AdmitForm:
    """The call that reserves what one plan asks for."""

    __slots__ = ("_amounts", "_amounts_head", "_head", "_hold", "_hold_key", "_limits", "_rules")

    def __init__(self, digest: str, environment: str, plan: Plan) -> None:
        rules = plan.rules
        keys = [epoch_key(environment), holds_key(environment), *_keys(plan)]
        count = len(keys) + 1  # the hold's own key is the last one
        head = [bulk("EVALSHA"), bulk(digest), bulk(str(count)), *map(bulk, keys)]
        self._head = b"*%d\r\n" % (3 + count + ARGUMENTS) + b"".join(head)
        self._hold_key = hold_key(environment, "").encode()
        self._rules = bulk(_admit_rules(plan))
        self._amounts = Struct(f"<{len(rules.budgets) + len(rules.windows)}d")
        self._amounts_head = b"$%d\r\n" % self._amounts.size
        held = [_held(rule, _NUMBER, charged=True) for rule in rules.budgets]
        sets = [parallel.key for parallel in rules.parallel]
        self._hold = _form(_hold(_TEXT, held, sets, _NUMBER, _TEXT, plan))
        self._limits = _form(",".join(_limit(window.key, _NUMBER) for window in rules.windows))

    def new_hold(self, trace: Trace, wanted: Reservation, abandon_nano: int) -> tuple[bytes, bytes]:
        """A HoldDocument without what the script knows, and the inside of its limits."""
        hold = self._hold % (trace.event_id.encode(), *wanted.nano, abandon_nano, _told(trace))
        return hold, self._limits % (*wanted.tokens,)

    def command(
        self, hold_id: bytes, wanted: Reservation, hold: bytes, limits: bytes, epoch: str
    ) -> bytes:
        """The whole call but for its last argument, the moment."""
        return b"%b$%d\r\n%b%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n%b%b%b%b\r\n" % (
            self._head,
            len(self._hold_key) + len(hold_id),
            self._hold_key,
            hold_id,
            len(hold_id),
            hold_id,
            len(hold),
            hold,
            len(limits),
            limits,
            bulk(epoch) if epoch else b"$0\r\n\r\n",
            self._rules,
            self._amounts_head,
            self._amounts.pack(*wanted.nano, *wanted.tokens),
        )


def grown_hold(
    trace: Trace, grant: Grant, wanted: Reservation, abandon_nano: int
) -> tuple[bytes, bytes]:
    """The same for a request that goes on with another target."""
    plan, rules = wanted.plan, wanted.rules
    held = [
        _held(rule, str(nano), charged=belongs(rule, plan.first)) for rule, nano in grant.budgets()
    ]
    held += [
        _held(rule, str(nano), charged=True)
        for rule, nano in zip(rules.budgets, wanted.nano, strict=True)
    ]
    sets = [*grant.parallel, *(parallel.key for parallel in rules.parallel)]
    told = _told(trace).decode()
    hold = _hold(trace.event_id, held, sets, str(abandon_nano), told, plan)
    limits = [_limit(use.key, str(use.tokens), str(use.second)) for use in grant.windows]
    limits += [
        _limit(window.key, str(tokens))
        for window, tokens in zip(rules.windows, wanted.tokens, strict=True)
    ]
    return hold.encode(), ",".join(limits).encode()


def _keys(plan: Plan) -> list[str]:
    rules = plan.rules
    found = [rule.key for rule in rules.budgets] + [window.key for window in rules.windows]
    return found + [parallel.key for parallel in rules.parallel]


def _form(text: str) -> bytes:
    """For the % operator."""
    return text.replace("%", "%%").replace(_NUMBER, "%d").replace(_TEXT, "%b").encode()


def _hold(
    hold_id: str, held: Iterable[str], sets: list[str], abandon: str, told: str, plan: Plan
) -> str:
    facts = orjson.dumps(plan.facts)[1:].decode()
    return (
        f'"id":"{hold_id}","budgets":[{",".join(held)}],"parallel":{_json(sets)},'
        f'"abandon_nano":{abandon},"event":{{{told},{facts}}}'
    )


def _held(rule: BudgetRule, nano: str, *, charged: bool) -> str:
    return f"[{_json(rule.counter)},{nano},{_json(rule.bucket)},{int(charged)}]"


def _limit(key: str, tokens: str, second: str = _SECOND) -> str:
    return f"[{_json(key)},{second},{tokens}]"


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


def belongs(rule: BudgetRule, row: Deployment) -> bool:
    """Whether what a target costs counts in a budget."""
    return rule.model in (None, row.model) and rule.credential in (None, row.credential)


def _told(trace: Trace) -> bytes:
    """What differs between requests of one plan, of what its event would say."""
    return orjson.dumps({
        "started_at": trace.started_at,
        "customer": trace.customer,
        "route": trace.route,
        "requested_model": trace.requested_model,
        "streaming": trace.streaming,
    })[1:-1]  # fmt: skip


def _admit_rules(plan: Plan) -> bytes:
    rules, (first_budget, first_window) = plan.rules, plan.first_target
    found = [HOLD_TTL_S * 1000, len(rules.budgets), len(rules.windows), len(rules.parallel)]
    for index, rule in enumerate(rules.budgets):
        start_ms, end_ms = bounds_ms(rule.period)
        found += [int(index >= first_budget), rule.limit_nano, start_ms, end_ms]
        found += [rule.period.bucket_s or 0, rule.kept_s]
    for index, window in enumerate(rules.windows):
        found += [int(index >= first_window), window.rpm or 0, window.tpm or 0]
    return numbers([*found, *(parallel.limit for parallel in rules.parallel)])


# --- settlements ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Settlement:
    """How one hold ends: arguments of the script, ready to be sent."""

    hold_id: str
    packed: bytes
    arguments: int


class SettleForm:
    """The part of settlements that does not differ: for parts of a grant, and who answered."""

    __slots__ = ("_amounts", "_amounts_head", "_rest", "arguments")

    def __init__(self, plans: Sequence[Plan], endings: Sequence[Ending]) -> None:
        budgets = [rule for plan in plans for rule in plan.rules.budgets]
        windows = [window.key for plan in plans for window in plan.rules.windows]
        sets = [parallel.key for plan in plans for parallel in plan.rules.parallel]
        charged = [one for ending in endings for one in ending.charged]
        counted = [one for ending in endings for one in ending.counted]
        rules = [len(budgets), len(windows), len(sets)]
        for rule, belongs in zip(budgets, charged, strict=True):
            rules += [int(belongs), -1 if rule.bucket is None else rule.bucket]
            rules += [rule.period.bucket_s or 0, bounds_ms(rule.period)[1], rule.kept_s]
        # Of several attempts on one deployment the last one answered.
        rules += [
            int(belongs and key not in windows[index + 1 :])
            for index, (key, belongs) in enumerate(zip(windows, counted, strict=True))
        ]
        keys = [*(rule.key for rule in budgets), *windows, *sets]
        self._amounts = Struct(f"<{3 + len(budgets) + 2 * len(windows)}d")
        self._amounts_head = b"$%d\r\n" % self._amounts.size
        self._rest = b"\r\n" + bulk(numbers(rules)) + b"".join(map(bulk, keys))
        self.arguments = 4 + len(keys)

    def fill(self, hold_id: str, grant: Grant, nano: int, tokens: int) -> Settlement:
        """For one hold."""
        amounts: list[float] = [grant.certain, tokens, nano]
        for part in grant.parts:
            amounts += part.nano
        for part in grant.parts:
            for reserved in part.tokens:
                amounts += (part.second, reserved)
        id, epoch = hold_id.encode(), grant.epoch.encode()
        packed = b"$%d\r\n%b\r\n$%d\r\n%b\r\n%b%b%b" % (
            len(id),
            id,
            len(epoch),
            epoch,
            self._amounts_head,
            self._amounts.pack(*amounts),
            self._rest,
        )
        return Settlement(hold_id, packed, self.arguments)


def settlement(
    hold_id: str, grant: Grant, endings: Sequence[Ending], *, nano: int, tokens: int
) -> Settlement:
    """The request ended, each part of its grant in its way."""
    form: SettleForm | None = endings[0].wire if len(endings) == 1 else None
    if form is None:
        form = SettleForm([part.plan for part in grant.parts], endings)
        if len(endings) == 1:
            endings[0].wire = form
    return form.fill(hold_id, grant, nano, tokens)


def given_back(hold_id: str) -> Settlement:
    """Whatever the hold reserved is given back, nothing was spent."""
    return SettleForm((), ()).fill(hold_id, Grant("shared", "", certain=False), 0, 0)
