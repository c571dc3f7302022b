"""Weights in .safetensors files: a length, a JSON header, bytes. Nothing in there can run code."""

import json
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vol3d.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".safetensors"
TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "U8": "uint8",
    "BOOL": "bool",
}


def read_safetensors(path: Path) -> "dict[str, Tensor]":
    """The tensors of a file by name, on the CPU.

    Raises:
        CheckpointError: cut short, of another format, or with types that weights have not.
    """
    import torch

    try:
        data = torch.from_numpy(np.fromfile(path, dtype=np.uint8))
        start = 8 + int.from_bytes(data[:8].numpy().tobytes(), "little")
        if start > len(data):
            raise ValueError(f"a header of {start - 8} bytes, the file has {len(data)}")
        header = json.loads(data[8:start].numpy().tobytes())
        found = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            kind: torch.dtype = getattr(torch, TYPES[entry["dtype"]])
            first, last = (start + int(offset) for offset in entry["data_offsets"])
            if not start <= first <= last <= len(data) or last - first != prod(entry["shape"]) * kind.itemsize:
                raise ValueError(f"{name} lies at bytes {first} to {last} of {len(data)}")
            # cloned, as a view of another type must begin at a multiple of its size
            found[name] = data[first:last].clone().view(kind).reshape(entry["shape"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is no whole {SUFFIX} file: {' '.join(str(error).split())[:200]}") from error
    return found
