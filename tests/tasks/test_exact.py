"""Predictions to the byte: any strips, threads and devices; models averaged as they are said to be."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_case

from vol3d.datasets.given import given_image
from vol3d.errors import UsageError
from vol3d.files.runs import load_checkpoint, save_checkpoint
from vol3d.tasks.run import Run, load_run

RUN = Path(__file__).parents[1] / "data" / "tiny_run"
IMAGE, SPACING = tiny_case(5)[0], (0.8, 1.0, 3.0)
DETERMINISTIC = "inference.deterministic=true"


def probability(run: Run) -> np.ndarray:
    return run.predict_probability(IMAGE, spacing=SPACING).array


def loaded(*overrides: str, device: str = "cpu", precision: str = "float32") -> Run:
    return load_run(RUN, overrides=[DETERMINISTIC, *overrides], device=device, precision=precision)  # type: ignore[arg-type]


@pytest.mark.parametrize("average", ["probability", "logits"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_strips_threads_and_devices_do_not_change_a_byte(
    average: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, threads = (f"inference.average={average}", "inference.mirror_axes=[x]"), torch.get_num_threads()
    whole = loaded(*settings, precision=precision)
    expected = probability(whole)
    try:
        torch.set_num_threads(1)
        assert np.array_equal(probability(loaded(*settings, precision=precision)), expected)
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(probability(loaded(*settings, device="cpu,cpu", precision=precision)), expected)
    monkeypatch.setattr("vol3d.tasks.probabilities.accumulator_bytes", lambda device: 20_000)
    monkeypatch.setattr("vol3d.tasks.probabilities.SLAB_BYTES", 10_000)
    source = given_image(IMAGE, spacing=SPACING)
    assert whole.windows(source) > whole.models[0].grid(source.shape).count  # so there are strips
    assert np.array_equal(probability(loaded(*settings, precision=precision)), expected)


def test_the_default_mode_is_within_rounding_of_the_deterministic_one() -> None:
    np.testing.assert_allclose(
        probability(load_run(RUN, device="cpu", precision="float32")), probability(loaded()), atol=1e-4
    )


def test_averaged_logits_are_probabilities_near_those_averaged_as_such() -> None:
    as_logits, as_such = probability(loaded("inference.average=logits")), probability(loaded())
    assert as_logits.min() >= 0 and as_logits.sum(axis=0).max() <= 1 + 1e-5
    assert 0 < np.abs(as_logits - as_such).mean() < 0.05


def other_weights(folder: Path, change: float, name: str = "weights_last.pt") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.yaml").write_bytes((RUN / "fold_0" / "plan.yaml").read_bytes())
    weights = load_checkpoint(RUN / "fold_0" / "weights_last.pt")["weights"]
    save_checkpoint(folder / name, {"weights": {k: v * change for k, v in weights.items()}})
    return folder


@pytest.mark.parametrize(("parts", "first"), [((), 0.5), ((3, 1), 0.75)])
def test_runs_are_averaged_by_their_parts(tmp_path: Path, parts: Sequence[float], first: float) -> None:
    other = other_weights(tmp_path / "fold_0", 0.9)
    together = load_run(RUN, other, model_weights=parts, overrides=[DETERMINISTIC], device="cpu", precision="float32")
    alone = load_run(other, overrides=[DETERMINISTIC], device="cpu", precision="float32")
    expected = first * probability(loaded()) + (1 - first) * probability(alone)
    np.testing.assert_allclose(probability(together), expected, atol=1e-6)


def test_a_run_shares_its_part_among_its_folds(tmp_path: Path) -> None:
    for fold in range(3):
        other_weights(tmp_path / f"fold_{fold}", 0.9)
    found = load_run(RUN, tmp_path, model_weights=(1, 1), device="cpu").models
    assert [model.weight for model in found] == pytest.approx([1, 1 / 3, 1 / 3, 1 / 3])
    assert [model.weight for model in load_run(RUN, tmp_path, device="cpu").models] == [1, 1, 1, 1]


def test_the_best_few_are_models_or_one_mean(tmp_path: Path) -> None:
    for step, change in ((10, 1.1), (20, 0.9)):
        other_weights(tmp_path, change, f"weights_step_{step:07d}.pt")
    top = load_run(tmp_path, weights="top", device="cpu").models
    (mean,) = load_run(tmp_path, weights="averaged", device="cpu").models
    name = next(name for name, _ in mean.network.named_parameters())
    stored = load_checkpoint(RUN / "fold_0" / "weights_last.pt")["weights"][name]
    found = [dict(model.network.named_parameters())[name] for model in top]
    assert torch.equal(found[0], stored * 1.1) and torch.equal(found[1], stored * 0.9)
    torch.testing.assert_close(dict(mean.network.named_parameters())[name].detach(), stored)
    assert len({model.sha256 for model in (*top, mean)}) == 3


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["inference.symmetries=[quarter_turns]"], "trained without quarter turns"),
        (["inference.symmetries=[views]"], "trained without quarter turns"),
    ],
)
def test_symmetries_that_were_not_learned_are_refused(overrides: list[str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        load_run(RUN, overrides=overrides)


def test_turns_need_equal_edges_and_spacings(tmp_path: Path) -> None:
    folder = other_weights(tmp_path / "fold_0", 1.0)
    plan = folder / "plan.yaml"
    plan.write_text(plan.read_text() + "\nturned: true\n")
    with pytest.raises(UsageError, match="equal spacings, got y 1, x 3 mm"):
        load_run(folder, overrides=["inference.symmetries=[quarter_turns]"])
    plan.write_text(plan.read_text().replace("{z: 0.800000011920929, y: 1.0, x: 3.0}", "{z: 3.0, y: 1.0, x: 1.0}"))
    assert len(load_run(folder, overrides=["inference.symmetries=[mirrors, quarter_turns]"]).models[0].over) == 16
    with pytest.raises(UsageError, match="equal edges of the window, got z 8, y 16, x 16"):
        load_run(folder, overrides=["inference.symmetries=[views]"])


@pytest.mark.parametrize("parts", [(1,), (1, 2, 3), (1, 0), (1, float("nan"))])
def test_parts_are_positive_and_one_per_run(parts: Sequence[float]) -> None:
    with pytest.raises(UsageError, match="a positive number for each of 2 runs"):
        load_run(RUN, RUN, model_weights=parts)
