"""Compile every version of the labeller's kernels for a GPU that need not be there.

python tools/gpu/compile_kernels.py [COMPUTE_CAPABILITY [all]]

Triton's interpreter, in which the tests run the kernels, takes more than its compiler does. Prints a
line for each version. Without a tolerance for grey values, unless it is asked for all. Needs Triton, and
no GPU; the default is 90, that of H100 and H200.
"""

import os
import sys
import time
from collections.abc import Iterator
from typing import Any

os.environ["TRITON_INTERPRET"] = "0"

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from vol3d.regions import labeller, run_kernels

POINTERS = {"mask": "*u8", "active": "*i64"}
POINTERS |= dict.fromkeys(("bits", "starts", "counts", "ends", "parents", "ranks", "names", "labels"), "*i32")
GREY = ("u8", "i8", "i16", "u16", "fp16", "fp32")
# What Triton makes a version for: a width of 1, of a multiple of 16, any other.
WIDTHS = (None, 1, 16)


def versions(graded: bool) -> Iterator[tuple[Any, str, dict[str, Any], int, int | None]]:
    """Each kernel with the type of its grey values, its other constants, a program's warps and the width."""
    for grey in ("", *GREY) if graded else ("",):
        how = {"graded": grey != "", "floating": grey.startswith("fp")}
        for width in WIDTHS:
            yield run_kernels.pack, grey, {"size": labeller._PACKED, **how}, 4, width
        for dx in (-1, 0, 1):
            yield run_kernels.join, grey, {"size": labeller._JOINED, "dx": dx, **how}, 1, None
    for width in WIDTHS:
        yield run_kernels.paint, "", {"size": labeller._PAINTED}, 4, width
    yield run_kernels.name, "", {"size": labeller._NAMED}, 1, None


def compile_one(
    kernel: Any, grey: str, constants: dict[str, Any], warps: int, width: int | None, capability: int
) -> Any:
    """The compiled kernel."""
    constants = {**constants, **({"width": 1} if width == 1 else {})}
    names = kernel.arg_names
    types = {"tolerance": "fp32" if grey.startswith("fp") else "i32", "grey": f"*{grey or 'u8'}", **POINTERS}
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
    even = [name for name, kind in signature.items() if kind.startswith("*") or (name == "width" and width == 16)]
    attrs = {(names.index(name),): [["tt.divisibility", 16]] for name in even}
    source = ASTSource(kernel, signature, constexprs=constants, attrs=attrs)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})


def main(capability: int, graded: bool) -> None:
    """Compile all and tell how it went."""
    for kernel, grey, constants, warps, width in versions(graded):
        began = time.perf_counter()
        made = compile_one(kernel, grey, constants, warps, width, capability)
        told = f"{len(made.asm['cubin'])} bytes, {made.metadata.shared} shared, {time.perf_counter() - began:.1f} s"
        print(kernel.__name__, grey, constants, f"width {width or 'any'}:", told)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 90, "all" in sys.argv[2:])
