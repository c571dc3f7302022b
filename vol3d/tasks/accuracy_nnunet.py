"""nnU-Net beside a fold of ours: trained for the same minutes on the same cases, and scored alike."""

import json
from pathlib import Path
from typing import Any

from vol3d.config.tree import Config
from vol3d.datasets.manifest import MANIFEST, read_manifest
from vol3d.files.atomic import read_text, write_json
from vol3d.files.runs import split_names
from vol3d.tasks.benchmark_inference import RunScript
from vol3d.tasks.benchmark_row import Row
from vol3d.tasks.cross_validate import OUT_OF_FOLD, FoldScores
from vol3d.tasks.evaluate import evaluate
from vol3d.tasks.reporter import Reporter
from vol3d.tasks.settings import kept_settings


def beside_nnunet(
    run: Path, ours: FoldScores, steps: int, seconds: float, *, peer: RunScript, reporter: Reporter
) -> list[Row]:
    """Rows of the Dice of every region, ours by the fold's last weights, and of the samples that each saw.

    steps and seconds are those of our training, after cross_validate has written what the fold held out. peer runs
    tools/peers/nnunet_fold.py; its masks and record are kept in RUN/nnunet/fold_K, and not made again.
    """
    name = f"fold_{ours.fold}"
    work, config = run / "nnunet" / name, kept_settings(Config, run / name / "config.yaml")
    record = work / "record.json"
    if not record.is_file():
        reporter.note(f"nnU-Net learns {name} for {seconds / 60:.1f} minutes, and predicts ...")
        write_json(work / "job.json", _job(run, work, config, seconds / 60))
        write_json(record, peer("nnunet_fold.py", str(work / "job.json")))
    theirs = json.loads(read_text(record))
    cases = run / OUT_OF_FOLD / "last" / f"{name}.csv"
    scores = evaluate(work / "masks", cases, labels=config.data.schema(), reporter=reporter).summary
    title = f"nnU-Net {theirs['version']}, {theirs['seconds'] / 60:.1f} minutes here"
    rows = []
    for label, stats in scores.items():
        what = f"fold {ours.fold}, last weights, {label}: Dice"
        rows.append(Row(what, ours.scores.summary[label]["dice"].mean, stats["dice"].mean, title, None, "Dice", None))
    assert config.sampling.batch != "auto"
    samples = float(steps * config.sampling.batch)
    return [*rows, Row(f"fold {ours.fold}: samples seen", samples, theirs["samples"], title, None, "", None)]


def _job(run: Path, work: Path, config: Config, minutes: float) -> dict[str, Any]:
    """What tools/peers/nnunet_fold.py is told."""
    folder, schema = run / work.name, config.data.schema()
    return {
        "folder": str(work.resolve()),
        "minutes": minutes,
        "channel": config.data.channels[0],
        "labels": {region.name: region.values[0] for region in schema.regions},
        "cases": [
            {"name": case.name, "image": str(case.images[0]), "label": str(case.label)}
            for case in read_manifest(run / MANIFEST).cases
        ],
        "training": split_names(folder, "training"),
        "validation": split_names(folder, "validation"),
    }
