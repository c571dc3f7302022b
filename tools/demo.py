"""``make demo``: the whole job on synthetic kidneys, by the commands a user would type.

Writes everything under demo/: four kidneys, a run trained on three of them, the fourth predicted,
post-processed, scored and drawn.
"""

import argparse
import contextlib
import io
import json
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from vol3d.commands.main import main

HELD_OUT = "kidney_1"


def run(*argv: object) -> dict[str, Any]:
    """Show a command, run it, and give back its JSON; leave with its exit code when it fails."""
    words = [str(word) for word in argv]
    print(f"\n$ {'vol3d-' if words[0] in ('train', 'predict', 'view') else 'vol3d '}{shlex.join(words)}", flush=True)
    answer = io.StringIO()
    with contextlib.redirect_stdout(answer):
        code = main([*words, "--json"])
    if code:
        sys.exit(code)
    result: dict[str, Any] = json.loads(answer.getvalue().splitlines()[-1])
    return result


def mean(evaluation: dict[str, Any], metric: str) -> float:
    """A metric's mean of an evaluation."""
    value = evaluation["summary"]["mean"][metric]["mean"]
    return float("nan") if value is None else float(value)


def demo(out: Path, *, shape: str, minutes: float) -> None:
    """The whole job; the training takes the given minutes."""
    start = time.monotonic()
    shutil.rmtree(out, ignore_errors=True)
    config = Path(__file__).parents[1] / "configs" / "kidney.yaml"
    data, model, kidney = out / "data", out / "run", out / "data" / HELD_OUT
    run("phantom", data, "--shape", shape, "--count", 4)
    run("train", data, "--config", config, "--out", model, "--fold", 0, f"training.max_minutes={minutes:g}")
    predict = ("predict", kidney / "images", "--model", model / "fold_0")
    run(*predict, "--out", out / "plain", "postprocess.steps=[]")
    run(*predict, "--out", out / "predictions", "--organ-mask", kidney / "kidney_mask")
    mask, truth = out / "predictions" / HELD_OUT, kidney / "labels"
    plain = run("evaluate", out / "plain" / HELD_OUT, truth)
    scored = run("evaluate", mask, truth, "--out", out / "evaluation")
    pictures = ("--screenshot", out / "errors.png", "--mips", out / "mips.png", "--montage", out / "montage.png")
    drawn = run("view", "--pred", mask, "--truth", truth, "--image", kidney / "images", *pictures)

    print(f"\n{HELD_OUT}, which the model has not learned from, in {time.monotonic() - start:.0f} s:\n")
    print("                network alone   post-processed")
    for metric in ("surface_dice", "dice", "hit", "fp", "miss"):
        print(f"  {metric.replace('_', ' '):12}  {mean(plain, metric):13.4f}   {mean(scored, metric):14.4f}")
    print("\nsurface Dice at tolerance 0; hit = recall, fp = 1 - precision, miss = 1 - recall\n")
    for what, path in (
        ("error picture", out / "errors.png"),
        ("projections", out / "mips.png"),
        ("slices", out / "montage.png"),
        ("mask", mask),
        ("scores", out / "evaluation"),
        ("learning curve", model / "fold_0" / "learning_curve.png"),
    ):
        print(f"  {what:14}  {path}")
    if drawn["screenshot"] == "mips":
        print("\nNothing here draws in 3D, so the error picture shows projections; Debian: libegl1 libgl1-mesa-dri.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"))
    parser.add_argument("--shape", default="64,128,128", help="voxels z,y,x of a kidney")
    parser.add_argument("--minutes", type=float, default=4.0, help="time to train")
    arguments = parser.parse_args()
    demo(arguments.out, shape=arguments.shape, minutes=arguments.minutes)
