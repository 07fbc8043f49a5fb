"""``yolov10-dysample compare``, with the same words, for ``optimizer=MuSGD`` on a CPU without bfloat16 instructions:
``python -m scripts.musgd_on_cpu data=... device=cpu optimizer=MuSGD``.

MuSGD multiplies matrices in bfloat16, which takes such a CPU several times as long as in float32. Here they are
multiplied in float32 and rounded to bfloat16, as such instructions do. It must never change another result or another
optimiser.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from yolov10_dysample.commands.main import main
from yolov10_dysample.study import schedule
from yolov10_dysample.study.comparison import Run

__all__ = ["NOTE", "ProductsInFloat32", "begin", "multiply_in_float32"]

PRODUCTS = {torch.Tensor.matmul, torch.Tensor.__matmul__, torch.matmul, torch.mm, torch.bmm, torch.baddbmm}
NOTE = "in float32, rounded to bfloat16"
#: In front of what the process of a run does.
FIRST = "from scripts.musgd_on_cpu import begin\nbegin()\n"


class ProductsInFloat32(TorchFunctionMode):
    """Within it products of bfloat16 matrices are computed in float32; they stay bfloat16."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in PRODUCTS or args[0].dtype is not torch.bfloat16:
            return func(*args, **kwargs)
        return func(*(x.float() if isinstance(x, torch.Tensor) else x for x in args), **kwargs).bfloat16()


def multiply_in_float32() -> None:
    """Make MuSGD multiply so, in this process."""
    from ultralytics.optim import muon

    orthogonalize = muon.zeropower_via_newtonschulz5

    @functools.wraps(orthogonalize)
    def in_float32(*args: Any, **kwargs: Any) -> Any:
        with ProductsInFloat32():
            return orthogonalize(*args, **kwargs)

    muon.zeropower_via_newtonschulz5 = in_float32


def begin() -> None:
    """What the process of a run does first: its record is to say how it multiplied."""
    multiply_in_float32()
    note = Run.note
    Run.note = lambda run, **facts: note(run, **facts, products_of_musgd=NOTE)  # type: ignore[method-assign]


if __name__ == "__main__":
    words = sys.argv[1:]
    if {"-h", "--help"} & {*words}:
        print(__doc__)
        sys.exit()
    # With another optimiser or on a GPU its records would be wrong.
    if not {"optimizer=MuSGD", "device=cpu"} <= {*words} or any(word.startswith("ray=") for word in words):
        got = " ".join(words) or "nothing"
        print(f"must be given optimizer=MuSGD and device=cpu, and no ray=, got {got}", file=sys.stderr)
        sys.exit(2)
    schedule.PROCESS = FIRST + schedule.PROCESS
    sys.exit(main(["compare", *sys.argv[1:]]))
