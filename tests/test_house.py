"""The house's own laws, read from the source: who opens files, who may use which outside package."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import vol3d

PACKAGE = Path(vol3d.__file__).parent
ROOT = PACKAGE.parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# outside package -> where it may be imported
ONLY_IN = {
    "pyvista": {"viewer/scene.py"},
    "cc3d": {"regions/components.py"},
    "triton": {"regions/run_kernels.py"},
    "skimage": {"regions/skeleton.py", "files/polygons.py"},
    "SimpleITK": {"files/itk.py", "volume/volume.py"},
    "monai": {"network/", "training/losses.py", "volume/volume.py"},
    "nibabel": {"files/nifti.py", "files/nifti_header.py", "volume/volume.py"},
    "tifffile": {"files/tiff.py"},
    "zarr": {"files/probabilities.py", "files/ome_zarr.py"},
    "pydicom": {"files/dicom"},
    "highdicom": {"files/dicom_seg.py"},
    "h5py": {"files/hdf5.py"},
    "matplotlib": {"viewer/"},
    "PIL": {"viewer/"},
    "yaml": {"config/load.py", "files/runs.py"},
    "tqdm": {"commands/console.py"},
}
# light enough, or used so much, that a module may import it at the top; triton's one module is loaded where it is used
TOP_LEVEL = {"numpy", "torch", "scipy", "argparse", "yaml", "triton"}
FILE_OPENERS = {
    "open",
    "read_text",
    "write_text",
    "read_bytes",
    "write_bytes",
    "savefig",
    "memmap",
    "fromfile",
    "tofile",
}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in MODULES:
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text())


def imports(tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0], node


def test_outside_packages_stay_where_they_belong() -> None:
    wrong = [
        f"{name} imports {package}"
        for name, tree in modules()
        for package, _ in imports(tree)
        if package in ONLY_IN and not any(name.startswith(place) for place in ONLY_IN[package])
    ]
    assert wrong == []


def test_heavy_packages_are_imported_where_they_are_used() -> None:
    # So that training and predicting NIfTI works without SimpleITK, cc3d and pyvista, and --help is fast.
    wrong = [
        f"{name}:{node.lineno} imports {package} at the top"
        for name, tree in modules()
        for node in tree.body
        for package, _ in imports(node)
        if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef | ast.If)
        and package in ONLY_IN.keys() - TOP_LEVEL
    ]
    assert wrong == []


def test_only_the_files_room_opens_files() -> None:
    wrong = [
        f"{name}:{node.lineno}"
        for name, tree in modules()
        if not name.startswith("files/")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and (
            (isinstance(node.func, ast.Name) and node.func.id == "open")
            or (isinstance(node.func, ast.Attribute) and node.func.attr in FILE_OPENERS and not _is_os(node.func))
        )
    ]
    assert wrong == []


def _is_os(function: ast.Attribute) -> bool:
    return isinstance(function.value, ast.Name) and function.value.id == "os"


def test_no_function_below_tasks_has_a_parameter_named_config() -> None:
    wrong = [
        f"{name}:{node.lineno} {node.name}"
        for name, tree in modules()
        if not name.startswith(("tasks/", "config/", "commands/"))
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and any(a.arg == "config" for a in [*node.args.args, *node.args.kwonlyargs, *node.args.posonlyargs])
    ]
    assert wrong == []


def test_names_say_something() -> None:
    nothing = re.compile(r"(^|/)(utils?|helpers?|common|misc|base)(/|\.py$)")
    assert [name for name, _ in modules() if nothing.search(name)] == []


def test_only_commands_print() -> None:
    wrong = [
        f"{name}:{node.lineno}"
        for name, tree in modules()
        if not name.startswith("commands/")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert wrong == []


def test_the_floor_plan_names_every_room_and_no_other() -> None:
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert set(re.findall(r"\b([a-z]+)/", vol3d.__doc__ or "")) == rooms


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_constraints_pin_what_setup_cfg_asks_for() -> None:
    pinned = {
        re.split(r"==", line)[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    wanted = re.findall(r"^    ([A-Za-z0-9_-]+)(?:[><=;].*)?$", (ROOT / "setup.cfg").read_text(), flags=re.MULTILINE)
    assert {w.lower() for w in wanted} - {"error"} <= pinned
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().splitlines()
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]
