"""Weights that others saved with torch.

Such files are pickles, which can run code when they are opened. They are read by torch's restricted unpickler, which
knows tensors and plain values; what else is often there, NumPy's numbers, is allowed by name.
"""

import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vol3d.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS_IN = ("state_dict", "model_state_dict", "model", "weights")
"""Where whole trainings keep the weights among other things."""


def weights_in(content: Any, path: Path) -> "dict[str, Tensor]":
    """The tensors by name of what such a file holds: a state dict, or one within a checkpoint.

    Raises:
        CheckpointError: there are none.
    """
    from torch import Tensor

    for found in (content, *(content.get(name) for name in WEIGHTS_IN if isinstance(content, dict))):
        if isinstance(found, dict) and found and all(isinstance(value, Tensor) for value in found.values()):
            return {str(name): value for name, value in found.items()}
    raise CheckpointError(
        f"{path} holds no weights: expected tensors by name, at its top or under {' or '.join(WEIGHTS_IN)}"
    )


def load_pickled(path: Path, *, trust_pickle: bool = False) -> Any:
    """The content of a file that torch saved, on the CPU. trust_pickle opens it as Python does, which can run any code.

    Raises:
        CheckpointError: damaged, missing, or it holds more than tensors and plain values.
    """
    import torch

    # Mapped into memory, so that the optimizer's state, two thirds of the file, is never read.
    mapped = zipfile.is_zipfile(path)
    try:
        with torch.serialization.safe_globals(_harmless()):
            return torch.load(path, map_location="cpu", weights_only=not trust_pickle, mmap=mapped)
    except pickle.UnpicklingError as error:
        named = re.search(r"(?:GLOBAL|Unsupported class|type) ([\w.]+)", str(error))
        what = named[1] if named and not trust_pickle else "what is no checkpoint"
        hint = "" if trust_pickle else "; if you trust whom it is from, --trust-pickle opens it all the same"
        raise CheckpointError(
            f"{path} holds {what}, more than tensors and plain values: such a file can run code when it is opened{hint}"
        ) from error
    except Exception as error:  # bytes that are no pickle fail in whatever way the unpickler comes upon first
        raise CheckpointError(f"{path} cannot be read ({' '.join(str(error).split())[:200]})") from error


def _harmless() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """What NumPy's scalars and arrays are pickled by, under the names of both its generations."""
    from numpy._core import multiarray

    numbers = (np.float64, np.float32, np.float16, np.int64, np.int32, np.uint8, np.bool_)
    return [
        *(
            (function, f"{module}.multiarray.{function.__name__}")
            for function in (multiarray.scalar, multiarray._reconstruct)
            for module in ("numpy.core", "numpy._core")
        ),
        np.ndarray,
        np.dtype,
        *(type(np.dtype(one)) for one in numbers),
    ]
