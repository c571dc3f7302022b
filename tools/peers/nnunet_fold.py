"""Train nnU-Net for so many minutes and predict what was held out: JOB.json, JSON on stdout.

The job says folder (to work in), minutes, channel, labels (name: value), cases (name: image and label, .nii.gz), and
the names for training and for validation. nnU-Net plans, preprocesses (not counted) and learns as shipped: its
3d_fullres plan, its trainer's loss, optimiser, augmentation and loader. Two things differ: its learning rate falls by
time, so that the polynomial decay ends inside the minutes, and its validations between epochs, which choose nothing,
are left out. The last weights predict, mirrored as shipped, into folder/masks. seconds are those of the training,
steps its updates, samples the patches it saw.
"""

import json
import os
import sys
import time
import warnings
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path

job = json.loads(Path(sys.argv[1]).read_text())
folder = Path(job["folder"])
places = {name: folder / name for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
os.environ.update({name: str(place) for name, place in places.items()})

import torch  # noqa: E402
from nnunetv2.experiment_planning import plan_and_preprocess_api as planning  # noqa: E402
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: E402
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # noqa: E402

warnings.filterwarnings("ignore")
NAME, CONFIGURATION, PROCESSES = "Dataset001_Fold", "3d_fullres", 2
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def write_raw() -> None:
    """The cases in nnU-Net's layout, as links."""
    raw = places["nnUNet_raw"] / NAME
    for case in job["cases"]:
        for kind, name in (("image", f"imagesTr/{case['name']}_0000"), ("label", f"labelsTr/{case['name']}")):
            link = raw / f"{name}.nii.gz"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(Path(case[kind]).resolve())
    description = {
        "channel_names": {"0": job["channel"]},
        "labels": {"background": 0, **job["labels"]},
        "numTraining": len(job["cases"]),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(description))


def preprocess() -> Path:
    """Plan and preprocess; the folder that holds both."""
    planning.extract_fingerprints([1], num_processes=PROCESSES, show_progress_bar=False)
    planning.plan_experiments([1])
    planning.preprocess([1], configurations=[CONFIGURATION], num_processes=[PROCESSES], show_progress_bar=False)
    preprocessed = places["nnUNet_preprocessed"] / NAME
    split = [{"train": job["training"], "val": job["validation"]}]
    (preprocessed / "splits_final.json").write_text(json.dumps(split))
    return preprocessed


def train(preprocessed: Path) -> tuple[nnUNetTrainer, int, float]:
    """The trainer at its end, its steps and seconds."""
    plans, description = (
        json.loads((preprocessed / f"{name}.json").read_text()) for name in ("nnUNetPlans", "dataset")
    )
    trainer = nnUNetTrainer({**plans, "continue_training": False}, CONFIGURATION, 0, description, device=device)
    trainer.initialize()
    trainer.on_train_start()
    trainer.network.train()
    start, budget, steps = time.monotonic(), 60 * job["minutes"], 0
    while (done := (time.monotonic() - start) / budget) < 1:
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.initial_lr * (1 - done) ** 0.9
        trainer.train_step(next(trainer.dataloader_train))
        steps += 1
    seconds = time.monotonic() - start
    trainer.on_train_end()
    return trainer, steps, seconds


def predict(results: str) -> None:
    """What the fold held out, as nnU-Net does it."""
    predictor = nnUNetPredictor(perform_everything_on_device=device.type == "cuda", device=device, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(results, use_folds=(0,))
    masks = folder / "masks"
    masks.mkdir(exist_ok=True)
    images = places["nnUNet_raw"] / NAME / "imagesTr"
    predictor.predict_from_files_sequential(
        [[str(images / f"{name}_0000.nii.gz")] for name in job["validation"]],
        [str(masks / name) for name in job["validation"]],
    )


if __name__ == "__main__":  # its loaders are processes that read this file again
    with redirect_stdout(sys.stderr):
        write_raw()
        trainer, steps, seconds = train(preprocess())
        predict(trainer.output_folder_base)
    samples = steps * trainer.batch_size
    print(json.dumps({"seconds": seconds, "steps": steps, "samples": samples, "version": version("nnunetv2")}))
