"""Weights from .safetensors files, written here byte by byte."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vol3d.errors import CheckpointError
from vol3d.files.safetensors import read_safetensors


def write(path: Path, header: dict[str, Any], data: bytes) -> Path:
    told = json.dumps(header).encode()
    path.write_bytes(len(told).to_bytes(8, "little") + told + data)
    return path


def test_tensors_come_back_with_their_types_wherever_they_lie(tmp_path: Path) -> None:
    values = np.arange(6, dtype="<f4").reshape(2, 3)
    half = torch.tensor([1.5, -2.0], dtype=torch.bfloat16)
    data = b"\1" + values.tobytes() + half.view(torch.int16).numpy().tobytes() + np.int64(7).tobytes()
    header = {
        "__metadata__": {"format": "pt"},
        "flag": {"dtype": "BOOL", "shape": [1], "data_offsets": [0, 1]},
        "weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [1, 25]},
        "half": {"dtype": "BF16", "shape": [2], "data_offsets": [25, 29]},
        "count": {"dtype": "I64", "shape": [], "data_offsets": [29, 37]},
    }
    found = read_safetensors(write(tmp_path / "a.safetensors", header, data))
    assert found["flag"].tolist() == [True]
    assert torch.equal(found["weight"], torch.from_numpy(values))
    assert torch.equal(found["half"], half)
    assert found["count"].item() == 7
    assert found.keys() == header.keys() - {"__metadata__"}


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 9]}, "lies at bytes"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}, "lies at bytes"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}, "lies at bytes"),
        ({"dtype": "F4", "shape": [2], "data_offsets": [0, 8]}, "F4"),
        ({"shape": [2]}, "dtype"),
        ([], "indices"),
    ],
)
def test_entries_that_lie_are_refused(entry: Any, sentence: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", {"a": entry}, b"\0" * 8)
    with pytest.raises(CheckpointError, match=rf"a\.safetensors is no whole \.safetensors file: .*{sentence}"):
        read_safetensors(path)


@pytest.mark.parametrize(
    "content", [b"", b"abc", b"\377" * 30, (2).to_bytes(8, "little") + b"[]", (9).to_bytes(8, "little") + b"{"]
)
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="no whole"):
        read_safetensors(path)
