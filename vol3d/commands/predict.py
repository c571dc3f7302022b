"""``vol3d-predict VOLUME_DIR --model RUN --out DIR``."""

import argparse
from pathlib import Path
from typing import Any

from vol3d.commands.console import Console, shown
from vol3d.commands.outcome import Outcome
from vol3d.commands.spacing import spacing_in

HELP = "segment volumes with a trained run"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add("volume_dir", type=Path, metavar="VOLUME_DIR", help="a volume, a folder of slices or volumes, a table of cases")
    add("overrides", nargs="*", metavar="section.key=value", help="settings of inference and postprocess")
    add(
        "--model",
        type=Path,
        nargs="+",
        required=True,
        metavar="RUN",
        help="runs, or nnU-Net's results; several are averaged",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the masks")
    add("--organ-mask", type=Path, metavar="DIR", help="masks of equal names; what lies outside is removed")
    add("--organ-model", type=Path, metavar="RUN", help="a run that finds those masks first")
    add("--organ-margin", type=float, metavar="MM", help="look only in the box so far around the organ")
    add("--spacing", metavar=("Z", "Y", "X"), nargs=3, type=float, help="voxel size in mm, overrides the files'")
    add("--channels", metavar="N", nargs="+", type=int, help="the model's among a file's, from 0 on")
    formats = ["auto", "nii.gz", "nii", "nrrd", "seg.nrrd", "mha", "tif", "png", "ome.zarr", "h5", "npy", "dicom-seg"]
    add("--format", choices=formats, default="auto", help="of the masks")
    add("--model-weights", type=float, nargs="+", default=[], metavar="W", help="each run's part in the average")
    add("--weights", choices=["last", "best", "top", "averaged"], default="last", help="which of a run's weights")
    add("--save-probability", action="store_true", help="keep the probabilities (Zarr, float16)")
    add("--overwrite", action="store_true", help="replace results that were made otherwise")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N; several GPUs: cuda:0,cuda:1")
    add("--precision", choices=["auto", "float32", "bfloat16"], default="auto", help="of the network")
    add("--trust-pickle", action="store_true", help="open nnU-Net's checkpoints even if they can run code")
    add("--plugin", type=Path, action="append", default=[], metavar="FILE.py", help="registers networks, losses ...")
    add("--dry-run", action="store_true", help="tell what would be done and stop")


def run(arguments: argparse.Namespace) -> Outcome:
    """Predict."""
    from vol3d.tasks.plugins import load_plugins
    from vol3d.tasks.predict import predict

    load_plugins(arguments.plugin)
    result = predict(
        arguments.volume_dir,
        models=arguments.model,
        out=arguments.out,
        organ_mask=arguments.organ_mask,
        organ_model=arguments.organ_model,
        organ_margin=arguments.organ_margin,
        spacing=spacing_in(arguments),
        channels=arguments.channels or (),
        format=arguments.format,
        weights=arguments.weights,
        model_weights=arguments.model_weights,
        save_probability=arguments.save_probability,
        overwrite=arguments.overwrite,
        device=arguments.device,
        precision=arguments.precision,
        trust_pickle=arguments.trust_pickle,
        overrides=arguments.overrides,
        dry_run=arguments.dry_run,
        reporter=Console(),
    )
    lines = [_told(volume) for volume in result.volumes]
    lines += [f"FAILED {shown(name)}: {shown(reason)}" for name, reason in result.failed.items()]
    data = {"volumes": result.volumes, **({"failed": result.failed} if result.failed else {})}
    return Outcome(data, "\n".join(lines), exit_code=4 if result.failed else 0)


def _told(volume: dict[str, Any]) -> str:
    """A volume's report in two lines."""
    seconds, forms = volume["seconds"], {f"{f['precision']}, batch {f['batch']}: {f['why']}" for f in volume["forms"]}
    skipped = f", {volume['windows_skipped']} skipped" if volume["windows_skipped"] else ""
    stages = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items() if name != "total" and value >= 0.05)
    device = f" and {volume['peak_device_mb']:.0f} on {volume['device']}" if volume["peak_device_mb"] else ""
    return (
        f"{shown(volume['output'])}  {seconds['total']:.1f} s, {volume['windows_run']} windows{skipped}\n"
        f"    {stages or 'at once'}; peak {volume['peak_rss_mb']:.0f} MiB{device}; {'; '.join(sorted(forms))}"
    )
