"""What tokens cost at most on one deployment, as whole numbers, worked out once per price.

    Rate.worst_nano(demand)   = nano_dollars(worst_cost(demand, price, model))
    Rate.least_nano(demand)   = nano_dollars(least_cost(demand, deployment))

Prices per token are scaled to integers by their common denominator, so nothing is rounded
before the end, where the result is rounded up. What is not sold by tokens takes the way
over Decimal.
"""

from fractions import Fraction
from math import lcm

from proxy.contract import ModelDocument
from proxy.contract.counters import nano_dollars
from proxy.estimate import DEFAULT_OUTPUT_TOKENS, Demand, worst_cost
from proxy.snapshot import Price

_INPUTS = ("input_token",)
_OUTPUTS = ("output_token", "reasoning_token")
_TOKEN_UNITS = frozenset({
    "input_token", "output_token", "reasoning_token", "cache_read_token", "cache_write_token",
    "input_audio_token", "output_audio_token",
})  # fmt: skip


class Rate:
    """A price together with the sizes of the model that it is for."""

    __slots__ = ("_caps", "_least", "_model", "_other", "_price", "_scale", "_tokens", "_window")

    def __init__(self, price: Price, model: ModelDocument | None) -> None:
        units = {unit: Fraction(amount) * 10**9 for unit, amount in price.units.items()}
        scale = lcm(*(amount.denominator for amount in units.values()))
        whole = {unit: int(amount * scale) for unit, amount in units.items()}
        self._price, self._model, self._scale = price, model, scale
        self._window = model["context_window"] if model is not None else None
        self._caps = (model["max_output_tokens"] if model else None) or DEFAULT_OUTPUT_TOKENS
        # By what a demand is: [caching][audio] -> input and output.
        self._tokens = [
            [_dearest(whole, caching=caching, audio=audio) for audio in (False, True)]
            for caching in (False, True)
        ]
        self._other = {
            unit for unit, amount in whole.items() if amount and unit not in _TOKEN_UNITS
        }
        self._least = whole.get("input_token", 0), whole.get("request", 0)

    def worst_nano(self, demand: Demand) -> int:
        """The most that a request can cost, nano-dollars rounded up."""
        if self._other and not self._other.isdisjoint(demand.units):
            return nano_dollars(worst_cost(demand, self._price, self._model))
        per_input, per_output = self._tokens[demand.caching][demand.audio]
        inputs, outputs = demand.input_tokens, demand.output_tokens
        if self._window and inputs > self._window * demand.choices:
            inputs = self._window * demand.choices
        if outputs is None:
            outputs = self._caps * demand.choices
        return -(-(inputs * per_input + outputs * per_output) // self._scale)

    def least_nano(self, demand: Demand) -> int:
        """What the input alone probably costs, nano-dollars rounded up."""
        per_input, per_request = self._least
        return -(-(demand.rough_input_tokens * per_input + per_request) // self._scale)


def _dearest(whole: dict[str, int], *, caching: bool, audio: bool) -> tuple[int, int]:
    inputs, outputs = list(_INPUTS), list(_OUTPUTS)
    if caching:
        inputs.append("cache_write_token")
    if audio:
        inputs.append("input_audio_token")
        outputs.append("output_audio_token")
    return max(whole.get(unit, 0) for unit in inputs), max(whole.get(unit, 0) for unit in outputs)
