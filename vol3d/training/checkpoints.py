"""Which checkpoints to keep: a policy over names and scores, without files."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kept:
    """A validated moment of the training."""

    step: int
    score: float


@dataclass(frozen=True)
class BestK:
    """The k best moments so far, best first; the earlier one wins a tie."""

    k: int
    kept: tuple[Kept, ...] = ()

    def offered(self, step: int, score: float) -> "BestK":
        """With one more moment, if it is among the best."""
        ranked = sorted([*self.kept, Kept(step, score)], key=lambda m: (-m.score, m.step))
        return BestK(self.k, tuple(ranked[: self.k]))

    @property
    def best(self) -> Kept | None:
        """The best moment."""
        return self.kept[0] if self.kept else None
