"""What so many cases can show: intervals of a mean, and of the difference of two methods on the same cases.

Intervals are percentiles of the means of RESAMPLES bootstrap resamples of the cases, which are taken to be drawn
independently. For few cases the plain percentiles are too narrow; they are moved outwards as far as Student's t lies
beyond the normal distribution (Hesterberg 2015, "expanded percentile"). Fewer than MIN_CASES have no interval.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, ndtr, stdtrit

MIN_CASES = 6
"""Of five pairs all may favour one side, and a two-sided sign test still says p = 0.0625."""

RESAMPLES = 5000
_AT_ONCE = 1 << 22  # cases drawn in one go: 32 MB of indices

Better = Literal["higher", "lower", "nearest zero"]
"""Which way a score is good."""


@dataclass(frozen=True)
class Interval:
    """From low to high, inclusive."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class PairedDifference:
    """A method's score minus that of another on the n cases where both have one; undefined counts the others.

    mean is None without a case, interval with fewer than MIN_CASES. p_value is the two-sided sign test's, exact for
    every n: equal cases are left out; None with fewer than MIN_CASES.
    """

    mean: float | None
    interval: Interval | None
    n: int
    undefined: int
    better: int
    worse: int
    equal: int
    p_value: float | None
    lower_is_better: bool

    @property
    def verdict(self) -> str:
        """Better or worse only where the interval excludes zero."""
        if self.interval is None:
            return f"{MIN_CASES} cases or more are needed to tell"
        if 0 in self.interval:
            return f"no difference that these {self.n} cases can show"
        return "better" if (self.interval.high < 0) == self.lower_is_better else "worse"

    def record(self) -> dict[str, float | int | str | None]:
        """A flat row for JSON and tables."""
        low, high = (self.interval.low, self.interval.high) if self.interval else (None, None)
        counts = {"better": self.better, "worse": self.worse, "equal": self.equal, "undefined": self.undefined}
        return {
            "difference": self.mean,
            "low": low,
            "high": high,
            "n": self.n,
            **counts,
            "p_value": self.p_value,
            "verdict": self.verdict,
        }


def bootstrap_mean(
    values: Sequence[float | None], *, generator: np.random.Generator, confidence: float = 0.95
) -> Interval | None:
    """The interval of the mean over cases; None (undefined) values are left out. None with fewer than MIN_CASES.

    Equal values give an interval of no width.

    Raises:
        ValueError: confidence is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence must lie between 0 and 1, got {confidence}")
    cases = np.array([value for value in values if value is not None], dtype=np.float64)
    n = len(cases)
    if n < MIN_CASES:
        return None
    first = cases[0]  # Means of what is left beside it are exact where all are equal.
    means = first + _resampled_means(cases - first, generator)
    tail = float(ndtr(math.sqrt(n / (n - 1)) * stdtrit(n - 1, (1 - confidence) / 2)))
    low, high = np.quantile(means, (tail, 1 - tail))
    return Interval(float(low), float(high))


def paired_difference(
    values: Sequence[float | None],
    baseline: Sequence[float | None],
    *,
    generator: np.random.Generator,
    confidence: float = 0.95,
    better: Better = "higher",
) -> PairedDifference:
    """Compare two methods' scores of the same cases, in the same order: values minus baseline.

    The interval is bootstrap_mean's of the cases' differences. Scores that are better nearest zero are compared by
    their distances from it.

    Raises:
        ValueError: their numbers of cases differ, or confidence is not between 0 and 1.
    """
    if len(values) != len(baseline):
        raise ValueError(f"expected scores of the same cases, got {len(values)} and {len(baseline)}")
    pairs = [(a, b) for a, b in zip(values, baseline, strict=True) if a is not None and b is not None]
    if better == "nearest zero":
        pairs = [(abs(a), abs(b)) for a, b in pairs]
    differences = [a - b for a, b in pairs]
    more, less = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    n, lower = len(pairs), better != "higher"
    return PairedDifference(
        mean=math.fsum(differences) / n if n else None,
        interval=bootstrap_mean(differences, generator=generator, confidence=confidence),
        n=n,
        undefined=len(values) - n,
        better=less if lower else more,
        worse=more if lower else less,
        equal=n - more - less,
        p_value=sign_test(more, less) if n >= MIN_CASES else None,
        lower_is_better=lower,
    )


def sign_test(more: int, less: int) -> float:
    """How likely so uneven a split of more + less cases is, or a more uneven one, if both ways are as likely.

    >>> sign_test(6, 0), sign_test(3, 3), sign_test(0, 0)
    (0.03125, 1.0, 1.0)
    """
    return min(1.0, 2 * float(bdtr(min(more, less), more + less, 0.5)))


def _resampled_means(cases: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
    rows = max(1, _AT_ONCE // len(cases))
    sizes = [min(rows, RESAMPLES - done) for done in range(0, RESAMPLES, rows)]
    return np.concatenate([cases[generator.integers(len(cases), size=(k, len(cases)))].mean(axis=1) for k in sizes])
