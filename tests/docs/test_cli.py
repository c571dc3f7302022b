"""docs/cli.md against the parsers, the exit codes, and what the commands print."""

import argparse
import fnmatch
import importlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vol3d import errors
from vol3d.commands import benchmark
from vol3d.commands.main import COMMANDS, main
from vol3d.metrics.registry import GROUPS
from vol3d.tasks import benchmark as benchmark_task
from vol3d.tasks.benchmark_row import Row

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
TITLES = {name: f"vol3d-{name}" if name in ("train", "predict", "view") else f"vol3d {name}" for name in COMMANDS}
# Keys that only some calls have; the others must come out of every call.
TRIED = ("precision", "batch", "compiled", "seconds")  # nothing is tried for so few windows
SOMETIMES = {
    "plan": {"failed.*", "coarse_spacing", "coarse_spacing[]", "warnings[]"},
    "info": {"failed.*", "volumes[].warnings[]"},
    "predict": {"failed.*", "volumes[].probability", *(f"volumes[].forms[].tried[].{name}" for name in TRIED)},
    "postprocess": {"failed.*"},
    "view": {"notes[]"},
    "tune": {
        "operating_points.*.steps[].*.*",
        "plans[]",
        *(f"regions.*.{name}.*.*" for name in ("settings", "from", "to")),
    },
}


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its two head lines."""
    _, found, text = PAGE.partition(f"\n{heading}\n")
    assert found, f"docs/cli.md has no heading {heading!r}"
    lines = re.split(r"\n#+ ", text)[0].splitlines()
    table = [line for line in lines if line.startswith("|")][2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table]


def named(cell: str) -> str:
    (name,) = re.findall(r"^`([^`]+)`$", cell)
    return str(name)


def actions(command: str) -> dict[str, argparse.Action]:
    parser = argparse.ArgumentParser(add_help=False)
    importlib.import_module(f"vol3d.commands.{command.replace('-', '_')}").configure(parser)
    return {str((a.option_strings or [a.metavar])[0]): a for a in parser._actions}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_argument_is_told_with_its_default_and_no_other(command: str) -> None:
    told = {named(cells[0]): cells[1] for cells in rows(f"## {TITLES[command]}")}
    declared = actions(command)
    assert told.keys() == declared.keys()
    for name, action in declared.items():
        if action.required and action.option_strings:
            assert told[name] == "required", name
        elif action.default is not None and action.default is not False:
            assert told[name] == f"`{action.default}`", name
        elif not told[name].startswith("`runs/"):  # made up by the command
            assert told[name] == "", name
        for choice in action.choices or ():
            assert f"`{choice}`" in PAGE, (name, choice)


def test_every_exit_code_is_told() -> None:
    told = {int(code) for cells in rows("### Exit codes") for code in cells[0].split(",")}
    ours = {kind.exit_code for kind in vars(errors).values() if hasattr(kind, "exit_code")}
    assert told == {0, 129, 143} | ours


def paths(value: Any, path: str = "") -> Iterator[str]:
    """The place of every plain value: lists as [], keys joined by dots."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for inner in value:
            yield from paths(inner, f"{path}[]")
    else:
        yield path


def agrees(path: str, told: str) -> bool:
    """Whether a documented path, in which * is any key, is this one."""
    return fnmatch.fnmatchcase(path.replace("[]", "()"), told.replace("[]", "()")) and path.count(".") == told.count(
        "."
    )


def printed(capsys: pytest.CaptureFixture[str], *argv: object) -> dict[str, Any]:
    code = main([*(str(word) for word in argv), "--json"])
    out = capsys.readouterr()
    assert code == 0, out.err
    (line,) = out.out.splitlines()
    result: dict[str, Any] = json.loads(line)
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli")


@pytest.fixture
def checked(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Runs a command and compares its JSON with the table."""

    def check(command: str, *argv: object) -> dict[str, Any]:
        result = printed(capsys, command, *argv)
        told = [named(cells[0]) for cells in rows(f"### JSON of {TITLES[command]}")]
        came = set(paths(result))
        assert [p for p in came if not any(agrees(p, t) for t in told)] == []
        unseen = [t for t in told if not any(agrees(p, t) for p in came)]
        assert set(unseen) <= SOMETIMES.get(command, set())
        return result

    return check


def test_what_the_commands_print(folder: Path, checked: Callable[..., dict[str, Any]]) -> None:
    data, run, out = folder / "kidneys", folder / "run", folder / "masks"
    drawn = checked("phantom", data, "--shape", "24,40,36", "--count", 3)
    assert drawn["kidneys"][0]["shape"] == [24, 40, 36]

    planned = checked("plan", data, "--out", folder / "plan", "network.base_features=4")
    assert {Path(planned["plan"]), Path(planned["report"])} == set((folder / "plan").iterdir())

    quick = ("training.epochs=1", "training.steps_per_epoch=2", "sampling.batch=1", "network.base_features=4")
    trained = checked("train", data, "--out", run, *quick, "inference.mirror_axes=[]")
    assert Path(trained["run"]) == run / "fold_0"
    areas = {"dice_area", "surface_dice_area", "best_threshold", "plateau_width"}
    assert set(trained["best"]) <= {"dice", "surface_dice", "hit", "fp", "miss", "step", *areas}
    checked("cross-validate", run)
    checked("tune", run)

    case = data / "kidney_1"
    how = ("--model", run, "--out", out, "--save-probability")
    predicted = checked("predict", case / "images", *how, "--organ-mask", case / "kidney_mask")
    (volume,) = predicted["volumes"]
    assert volume["shape"] == [24, 40, 36]
    assert set(volume["seconds"]) == {"read", "normalise", "network", "resample", "postprocess", "write", "total"}

    grown = checked("grow", case / "images", "--at", 12, 20, 18, "--tolerance", 300, "--out", folder / "grown.nii.gz")
    assert grown["voxels"] >= 1
    small = "postprocess.steps=[{size_filter: {min_voxels: 3}}]"
    checked("postprocess", out, "--model", run, "--out", folder / "again", "--components", small)
    checked("info", Path(__file__).parents[1] / "data" / "tiny_mask.nii.gz")
    checked("convert", "sennet-rle", case / "labels", folder / "masks.csv")
    checked("view", "--pred", volume["output"], "--truth", case / "labels", "--mips", folder / "mips.png")
    told_files = set(re.findall(r"RUN/fold_K/([\w.]+)", PAGE)) | {"learning_curve.png"}
    assert told_files <= {path.name for path in (run / "fold_0").iterdir()}


def test_what_an_evaluation_prints(tmp_path: Path, checked: Callable[..., dict[str, Any]]) -> None:
    for case in range(6):
        for name, shift in (("truth", 0), ("ours", 1), ("theirs", case)):
            labels = np.zeros((8, 12, 9), dtype=np.uint8)
            labels[2:5, 3 + shift : 6 + shift, 2:7] = 1
            (tmp_path / name).mkdir(exist_ok=True)
            np.save(tmp_path / name / f"c{case}.npy", labels)
        (tmp_path / "kept").mkdir(exist_ok=True)
        np.save(tmp_path / "kept" / f"c{case}.npy", np.full((8, 12, 9), 0.5))
    table = "".join(f"c{case},{'ab'[case % 2]}\n" for case in range(6))
    (tmp_path / "sources.csv").write_text(f"case,source\n{table}")
    options = ("--baseline", tmp_path / "theirs", "--sources", tmp_path / "sources.csv", "--metrics", *GROUPS)
    told = checked("evaluate", tmp_path / "ours", tmp_path / "truth", *options, "--probability", tmp_path / "kept")
    assert told["comparison"]["foreground"]["dice"]["better"] == 4
    assert told["comparison"]["foreground"]["dice"]["verdict"] == "no difference that these 6 cases can show"


def test_what_a_benchmark_prints(
    monkeypatch: pytest.MonkeyPatch, checked: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    row = Row.timed("a claim", 1.0, 2.0, "a peer", 0.0)
    monkeypatch.setitem(benchmark_task.SPEED, "components", lambda **_: [row])
    assert checked("benchmark", "components")["rows"][0]["ratio"] == 2.0
    assert main(["benchmark", "--json"]) == 2
    assert capsys.readouterr().out == ""  # after an error stdout is empty
    names = re.findall(r"`([\w-]+)`", next(cells[2] for cells in rows("## vol3d benchmark") if cells[0] == "`NAME`"))
    assert set(names) == {*benchmark_task.NAMES}
    assert benchmark.HELP
