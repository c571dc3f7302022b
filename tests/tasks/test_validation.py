"""A validation looks at each volume once, and its sweep says what other thresholds would have scored."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vol3d.config.load import load
from vol3d.config.tree import Config
from vol3d.errors import UsageError
from vol3d.metrics.overlap import overlap
from vol3d.metrics.sweep import THRESHOLDS
from vol3d.patches.sampling import TrainingCase
from vol3d.postprocess.threshold import decide
from vol3d.shapes import Spacing
from vol3d.tasks.preparation import PreparedCase
from vol3d.tasks.reporter import Silent
from vol3d.tasks.validation import levels_of, validation_of
from vol3d.volume.source import ArraySource

SPACING = Spacing(0.8, 1.0, 3.0)
SHAPE = (20, 31, 17)


class AsGiven(nn.Module):
    """Answers with its input: the image holds the logits. Counts the windows that it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = torch.zeros((), dtype=torch.int64)

    def __deepcopy__(self, memo: object) -> "AsGiven":
        return self

    def forward(self, windows: Tensor) -> Tensor:
        self.seen += len(windows)
        return windows


def case(logits: NDArray[np.float32], labels: NDArray[np.uint8], name: str = "one") -> PreparedCase:
    sources = ArraySource(logits, np.eye(4)), ArraySource(labels[None], np.eye(4))
    return PreparedCase(TrainingCase(name, *sources, places={}), SPACING)


def validated(cases: Sequence[PreparedCase], *overrides: str, network: nn.Module | None = None) -> dict[str, Any]:
    channels = cases[0].training.image.channels
    config = load(
        Config,
        text=None,
        name="",
        overrides=[
            f"data.channels=[{', '.join(f'c{n}' for n in range(channels))}]",
            "inference.window={z: 8, y: 16, x: 8}",
            "inference.mirror_axes=[]",
            *overrides,
        ],
    )
    validate = validation_of(cases, config, "float32", torch.device("cpu"), Silent())
    return validate(network or AsGiven())


def drawn(rng: np.random.Generator, channels: int = 1) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    labels = rng.integers(0, 3, SHAPE).astype(np.uint8)
    hot = np.stack([labels == n for n in ((1,) if channels == 1 else range(channels))])
    return (2.5 * hot + rng.standard_normal(hot.shape)).astype(np.float32), labels


def probability(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


ONE = "data.labels={vessel: [1]}"


def test_a_level_is_how_many_thresholds_decide_for_a_voxel() -> None:
    exact = torch.tensor([*THRESHOLDS, 0.0, 1.0, float("nan")])
    probability = torch.cat([exact, exact.nextafter(torch.zeros(1)), exact.nextafter(torch.ones(1))])[None, None]
    levels = levels_of(probability)
    decided = [decide(probability[None], "sigmoid", threshold)[0].numpy() for threshold in THRESHOLDS]
    assert (levels == np.sum(decided, axis=0)).all()


def test_the_curve_passes_through_the_scores_that_are_decided_on(rng: np.random.Generator) -> None:
    drawings = [drawn(rng), drawn(rng)]
    cases = [case(*pair, name=f"c{n}") for n, pair in enumerate(drawings)]
    found = validated(cases, ONE)
    curves = found["sweep"]
    assert curves["dice"]["mean"] == curves["dice"]["vessel"]
    assert curves["dice"]["mean"][9] == pytest.approx(found["dice"], abs=1e-6)
    assert curves["surface_dice"]["mean"][4] == pytest.approx(found["surface_dice"], abs=1e-6)
    # Blending sums shares, so a voxel in thousands may fall on the other side of a bound.
    expected = [
        np.mean([overlap(probability(logits[0]) >= t, labels == 1).dice for logits, labels in drawings])
        for t in THRESHOLDS
    ]
    assert curves["dice"]["mean"] == pytest.approx(expected, abs=2e-4)
    assert found["best_threshold"] == THRESHOLDS[int(np.argmax(expected))]
    assert found["dice_area"] == pytest.approx(np.mean(expected), abs=2e-4)
    assert 0.0 <= found["plateau_width"] <= 0.9


def test_another_threshold_changes_the_decision_and_not_the_curve(rng: np.random.Generator) -> None:
    cases = [case(*drawn(rng))]
    plain, low = validated(cases, ONE), validated(cases, ONE, "postprocess.threshold=0.2")
    assert low["sweep"] == plain["sweep"]
    assert low["dice"] == pytest.approx(plain["sweep"]["dice"]["mean"][3], abs=1e-6) != plain["dice"]


def test_every_window_is_seen_once_whatever_is_asked(rng: np.random.Generator) -> None:
    cases = [case(*drawn(rng))]
    plain, searching = AsGiven(), AsGiven()
    validated(cases, ONE, network=plain)
    validated(cases, ONE, "training.select_by=triplet", network=searching)
    windows = len(range(0, 12, 4)) + 1, 3, 4  # of 8, 16, 8 with half an overlap
    assert int(plain.seen) == int(searching.seen) == int(np.prod(windows))


def test_classes_are_swept_one_against_the_rest(rng: np.random.Generator) -> None:
    logits, labels = drawn(rng, channels=3)
    found = validated([case(logits, labels)], "data.labels={a: [1], b: [2]}")
    powers = np.exp(logits)
    share = powers / powers.sum(axis=0)
    for name, number in (("a", 1), ("b", 2)):
        expected = [overlap(share[number] >= t, labels == number).dice for t in THRESHOLDS]
        assert found["sweep"]["dice"][name] == pytest.approx(expected, abs=1e-3)
    winner = share.argmax(axis=0)
    decided = np.mean([overlap(winner == n, labels == n).dice for n in (1, 2)])
    assert found["dice"] == pytest.approx(decided, abs=1e-3)


def test_the_average_of_logits_is_made_a_probability_first(rng: np.random.Generator) -> None:
    cases = [case(*drawn(rng))]
    by_logits = validated(cases, ONE, "inference.average=logits")
    assert by_logits["dice"] == pytest.approx(validated(cases, ONE)["dice"], abs=1e-3)
    assert by_logits["sweep"]["dice"]["mean"] == pytest.approx(validated(cases, ONE)["sweep"]["dice"]["mean"], abs=1e-3)


def test_what_is_not_known_changes_no_curve(rng: np.random.Generator) -> None:
    logits, labels = drawn(rng)
    labels[:, 20:] = 9
    wild = logits.copy()
    wild[..., 20:, :] = np.where(np.indices(SHAPE)[0] % 2, 9.0, -9.0)[None, :, 20:]
    # Windows answer voxel by voxel here, so only the scores can tell the two apart.
    found = [
        validated([case(one, labels)], ONE, "data.ignore_label=9", "training.select_by=triplet")
        for one in (logits, wild)
    ]
    assert found[0]["sweep"] == found[1]["sweep"]


def test_the_best_triplet_is_told_in_the_words_of_the_step() -> None:
    logits, labels = np.full((1, *SHAPE), -4.0, np.float32), np.zeros(SHAPE, np.uint8)
    labels[4:9, 5:25, 6:9] = 1
    logits[0, 4:9, 5:25, 6:9] = -0.6  # p = 0.35
    logits[0, 4:9, 5:7, 6:9] = 2.0  # 30 sure voxels
    logits[0, 14:18, 5:25, 6:9] = -0.6  # as probable, and nowhere sure
    found = validated([case(logits, labels)], ONE, "training.select_by=triplet")
    told = found["sweep"]["triplets"]["vessel"]
    assert set(told) == {"seed_threshold", "min_seed_voxels", "grow_threshold", "dice"}
    assert told["dice"] == found["triplet"] == 1.0 > max(found["sweep"]["dice"]["mean"])
    assert told["grow_threshold"] in (0.2, 0.3) and 0.35 < told["seed_threshold"] < 0.9
    assert "triplet" not in validated([case(logits, labels)], ONE)


def test_a_triplet_of_classes_is_refused(rng: np.random.Generator) -> None:
    with pytest.raises(UsageError, match=r"training.select_by: a triplet .* a, b are classes"):
        validated([case(*drawn(rng, 3))], "data.labels={a: [1], b: [2]}", "training.select_by=triplet")
