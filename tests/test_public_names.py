import subprocess
import sys

import pytest

import vol3d


@pytest.mark.parametrize("name", vol3d.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(vol3d, name) is not None
    assert name == "__version__" or (vol3d.__getattr__(name).__doc__ and callable(getattr(vol3d, name)))


def test_public_names_are_sorted_and_no_others_are_promised() -> None:
    assert vol3d.__all__ == sorted(vol3d.__all__)
    assert set(vol3d.__all__) <= set(dir(vol3d))  # also before its first use, for who completes names by Tab
    assert {"__version__", *vol3d._WHERE} == set(vol3d.__all__)
    with pytest.raises(AttributeError, match="no attribute 'segment'"):
        vol3d.segment  # noqa: B018


def test_importing_the_package_loads_no_room() -> None:
    code = (
        "import sys, vol3d; print([m for m in sys.modules if m in ('torch', 'numpy') "
        "or (m.startswith('vol3d.') and m != 'vol3d.version')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
