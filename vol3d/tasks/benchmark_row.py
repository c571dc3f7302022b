"""A figure of a benchmark."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One figure and its peer's. ratio is peer time / our time: above 1 we are faster; None where it is no time.

    agreement is the largest absolute difference between both results, 0 where they are the same. Of a mean over
    seeds of chance low and high are the smallest and the largest: no order that these do not carry is one.
    """

    name: str
    ours: float | None
    peer: float | None
    peer_name: str
    ratio: float | None
    unit: str
    agreement: float | None
    low: float | None = None
    high: float | None = None

    @classmethod
    def timed(cls, name: str, ours: float, peer: float, peer_name: str, agreement: float | None = None) -> "Row":
        """A row of two times in seconds."""
        return cls(name, ours, peer, peer_name, peer / ours, "s", agreement)
