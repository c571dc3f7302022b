import argparse
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from vol3d.commands import evaluate
from vol3d.errors import UsageError


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    names = []
    for name, shift in (("prediction", 1), ("truth", 0)):
        labels = np.zeros((17, 31, 20), dtype=np.uint8)
        labels[2:9, 5 + shift : 15 + shift, 4:12] = 1
        nibabel.save(nibabel.Nifti1Image(labels, np.diag([3.0, 1.0, 0.8, 1.0])), tmp_path / f"{name}.nii.gz")
        names.append(str(tmp_path / f"{name}.nii.gz"))
    return names[0], names[1]


def parsed(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    evaluate.configure(parser)
    return parser.parse_args(argv)


def test_the_result_is_json_and_a_table(pair: tuple[str, str], tmp_path: Path) -> None:
    options = ["--tolerance-mm", "1", "--labels", "kidney=1", "--out", str(tmp_path / "scores")]
    outcome = evaluate.run(parsed(*pair, *options))
    assert outcome.exit_code == 0
    (case,) = json.loads(json.dumps(outcome.data, allow_nan=False))["cases"]
    assert (case["case"], case["label"], case["dice"]) == ("truth", "kidney", pytest.approx(0.9))
    assert case["hd95_mm"] == pytest.approx(1.0)
    assert case["surface_dice_at_tolerance"] == pytest.approx(1.0)
    assert outcome.data["summary"]["mean"]["dice"]["n"] == 1
    assert "0.9000" in outcome.text
    assert (tmp_path / "scores" / "metrics.csv").is_file()


def test_a_given_spacing_is_z_y_x(pair: tuple[str, str]) -> None:
    outcome = evaluate.run(parsed(*pair, "--spacing", "5", "0.25", "7"))
    assert outcome.data["cases"][0]["hd95_mm"] == pytest.approx(0.25)
    with pytest.raises(UsageError, match="three positive millimetres"):
        evaluate.run(parsed(*pair, "--spacing", "5", "0", "7"))
