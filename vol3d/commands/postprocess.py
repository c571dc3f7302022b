"""``vol3d postprocess PROBABILITY --out DIR``."""

import argparse
from pathlib import Path
from typing import Any

from vol3d.commands.console import Console, shown
from vol3d.commands.outcome import Outcome

HELP = "turn stored probabilities into masks with other thresholds and steps"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add("probability", type=Path, metavar="PROBABILITY", help="what --save-probability kept: a volume, or its folder")
    add("overrides", nargs="*", metavar="section.key=value", help="settings, such as postprocess.steps=[largest]")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the masks")
    add("--model", type=Path, metavar="RUN", help="the run whose plan says regions, grey values and steps")
    add("--config", type=Path, metavar="FILE", help="YAML settings that say them instead")
    add("--organ-mask", type=Path, metavar="PATH", help="masks of equal names; what lies outside is removed")
    add("--image", type=Path, metavar="PATH", help="images of equal names, for steps that look at grey values")
    add("--components", action="store_true", help="also write a table of every region's components (CSV)")
    formats = ["nii.gz", "nii", "nrrd", "seg.nrrd", "mha", "tif", "png", "ome.zarr", "h5", "npy", "dicom-seg"]
    add("--format", choices=formats, default="nii.gz", help="of the masks")
    add("--overwrite", action="store_true", help="replace results that were made otherwise")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N: where the steps run")
    add("--plugin", type=Path, action="append", default=[], metavar="FILE.py", help="registers networks, losses ...")


def run(arguments: argparse.Namespace) -> Outcome:
    """Post-process, and tell what every step did."""
    from vol3d.tasks.plugins import load_plugins
    from vol3d.tasks.postprocess import postprocess_volumes

    load_plugins(arguments.plugin)
    result = postprocess_volumes(
        arguments.probability,
        out=arguments.out,
        model=arguments.model,
        config_file=arguments.config,
        organ_mask=arguments.organ_mask,
        image=arguments.image,
        components=arguments.components,
        format=arguments.format,
        overwrite=arguments.overwrite,
        device=arguments.device,
        overrides=arguments.overrides,
        reporter=Console(),
    )
    lines = [line for volume in result.volumes for line in _told(volume)]
    lines += [f"FAILED {shown(name)}: {shown(reason)}" for name, reason in result.failed.items()]
    data = {"volumes": result.volumes, **({"failed": result.failed} if result.failed else {})}
    return Outcome(data, "\n".join(lines), exit_code=4 if result.failed else 0)


def _told(volume: dict[str, Any]) -> list[str]:
    """A volume's report: a line, and one for each step and region."""
    seconds = volume["seconds"]
    lines = [f"{shown(volume['output'])}  {seconds['total']:.1f} s; peak {volume['peak_rss_mb']:.0f} MiB"]
    for step in volume["postprocess"]:
        note = f" ({step['note']})" if step["note"] else ""
        lines.append(
            f"    {step['step']} {step['region']}: {step['removed']} voxels removed, {step['added']} added{note}, "
            f"{step['seconds']:.2f} s"
        )
    return lines
