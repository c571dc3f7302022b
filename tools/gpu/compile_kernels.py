"""Compile every version of the labeller's kernels for a GPU that need not be there (default: sm_90).

python tools/gpu/compile_kernels.py [COMPUTE_CAPABILITY]

Triton's interpreter, in which the tests run the kernels, takes more than its compiler does. Prints a
line for each version: registers, spilled bytes, shared memory. Needs Triton, and no GPU.
"""

import os
import re
import sys
import time

os.environ["TRITON_INTERPRET"] = "0"

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from vol3d.regions import labeller, run_kernels

POINTERS = {"mask": "*u8", "active": "*i64"}
POINTED = ("bits", "starts", "counts", "ends", "parents", "ranks", "names", "labels")
GREY = ("u8", "i8", "i16", "u16", "fp16", "fp32")


def versions():
    """Each kernel with the type of its grey values (None: no tolerance), other constants, its programs' warps."""
    for grey in (None, *GREY):
        for aligned in (False, True):
            yield run_kernels.pack, grey, {"size": labeller._PACKED}, 4, aligned
        for dx in (-1, 0, 1):
            yield run_kernels.join, grey, {"size": labeller._JOINED, "dx": dx}, 1, False
    yield run_kernels.name, None, {"size": labeller._NAMED}, 1, False
    for aligned in (False, True):
        yield run_kernels.paint, None, {"size": labeller._PAINTED}, 4, aligned


def compile_one(kernel, grey, constants, warps, aligned, target):
    """What came out: the compiled kernel."""
    floating = (grey or "").startswith("fp")
    constants = {**constants, "graded": grey is not None, "floating": floating}
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    signature = {name: "constexpr" if name in constants else "i32" for name in kernel.arg_names}
    signature |= {name: POINTERS.get(name, "*i32") for name in (*POINTED, *POINTERS) if name in signature}
    if "grey" in signature:
        signature |= {"grey": f"*{grey or 'u8'}", "tolerance": "fp32" if floating else "i32"}
    even = [n for n, kind in signature.items() if kind.startswith("*") or (n == "width" and aligned)]
    attrs = {(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in even}
    source = ASTSource(kernel, signature, constexprs=constants, attrs=attrs)
    return triton.compile(source, target=target, options={"num_warps": warps})


def main() -> None:
    """Compile all, for the compute capability given."""
    capability = int(sys.argv[1]) if len(sys.argv) > 1 else 90
    for kernel, grey, constants, warps, aligned in versions():
        began = time.perf_counter()
        made = compile_one(kernel, grey, constants, warps, aligned, GPUTarget("cuda", capability, 32))
        seconds = time.perf_counter() - began
        print(
            kernel.__name__, grey, constants, "aligned" if aligned else "",
            f"shared {made.metadata.shared} B, {len(re.findall(';', made.asm['ptx']))} instructions, {seconds:.1f} s",
        )  # fmt: skip


if __name__ == "__main__":
    main()
