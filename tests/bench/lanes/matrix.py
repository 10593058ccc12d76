"""Which combinations are measured, and for how long."""

from dataclasses import dataclass

from tests.bench.lanes.variants import BY_NAME, Case

LATENCIES = (0, 20, 300)
EVERYBODY = ("mock", "litellm", "tuned", "lane", "direct", "portkey", "hit", "unknown", "broke")
SERIOUS = ("mock", "tuned", "lane", "direct", "portkey")
OWN = ("mock", "tuned", "direct", "hit", "unknown", "broke")


@dataclass(frozen=True)
class Plan:
    """One case: its variants in turn, so many times."""

    case: Case
    variants: tuple[str, ...]
    rounds: int
    seconds: float = 4.0


@dataclass(frozen=True)
class Matrix:
    """Everything a run does."""

    plans: tuple[Plan, ...]
    paced_rounds: int
    paced_seconds: float
    first_token: tuple[str, ...]  # variants whose streams' first token is timed
    worker_rounds: int


FULL = Matrix(
    plans=(
        # What most bounds look at: the machine's slow spells take seconds, so rounds are short.
        Plan(Case(False, 0, 16), EVERYBODY, rounds=6, seconds=2.0),
        # Two that a few per cent decide between, and whose rounds differ by a tenth.
        Plan(Case(False, 0, 16), ("tuned", "lane"), rounds=14, seconds=2.0),
        Plan(Case(True, 0, 16), EVERYBODY, rounds=6, seconds=2.0),
        Plan(Case(False, 0, 1), EVERYBODY, rounds=5, seconds=2.0),
        Plan(Case(False, 0, 64), OWN, rounds=3),
        Plan(Case(False, 0, 256), OWN, rounds=2),
        Plan(Case(False, 20, 64), SERIOUS, rounds=2),
        Plan(Case(False, 300, 256), SERIOUS, rounds=2),
        Plan(Case(True, 0, 1), SERIOUS, rounds=2),
        Plan(Case(True, 0, 64), SERIOUS, rounds=2),
        Plan(Case(True, 20, 64), SERIOUS, rounds=2),
        Plan(Case(True, 300, 256), SERIOUS, rounds=2),
    ),
    paced_rounds=12,
    paced_seconds=3.0,
    first_token=("mock", "litellm", "tuned", "lane", "direct"),
    worker_rounds=6,
)
QUICK = Matrix(
    plans=(
        Plan(
            Case(False, 0, 16),
            ("mock", "tuned", "lane", "direct", "portkey", "hit", "unknown", "broke"),
            rounds=2,
            seconds=3.0,
        ),
        Plan(Case(False, 0, 16), ("tuned", "lane"), rounds=6, seconds=2.0),
        Plan(Case(True, 0, 16), ("mock", "tuned", "lane", "direct"), rounds=2, seconds=3.0),
        Plan(Case(False, 0, 1), ("mock", "direct"), rounds=2, seconds=3.0),
        Plan(Case(False, 0, 64), ("mock", "direct"), rounds=2, seconds=3.0),
    ),
    paced_rounds=4,
    paced_seconds=3.0,
    first_token=("mock", "tuned", "direct"),
    worker_rounds=4,
)


def chosen(matrix: Matrix, variants: set[str], kinds: set[str]) -> Matrix:
    """The part of a matrix that has these variants and kinds (`plain`, `stream`)."""
    plans = []
    for plan in matrix.plans:
        kept = tuple(
            name
            for name in plan.variants
            if name in variants and (BY_NAME[name].streams or not plan.case.stream)
        )
        if kept and ("stream" if plan.case.stream else "plain") in kinds:
            plans.append(Plan(plan.case, kept, plan.rounds, plan.seconds))
    first = tuple(name for name in matrix.first_token if name in variants)
    return Matrix(
        tuple(plans),
        matrix.paced_rounds if "plain" in kinds else 0,
        matrix.paced_seconds,
        first if "stream" in kinds else (),
        matrix.worker_rounds if "plain" in kinds else 0,
    )
