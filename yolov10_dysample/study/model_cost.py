"""What a model costs whatever the machine: parameters and multiply-adds; and the peak of a process's memory.

It must never run a module in training mode, nor count what it did not see computed. Torch's counter is loaded where it
is used: it takes 76 MB, which would be in every process whose memory is measured.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["count_operations", "peak_memory"]

aten = torch.ops.aten


def _four_rows_an_output(*shapes: Any, out_shape: Any, **_: Any) -> int:
    """Bilinear sampling: four multiply-adds an output number; torch's counter counts two for each."""
    return 2 * 4 * prod(out_shape)


def _rows_of_a_table(table: Any, index: Any, *shapes: Any, out_shape: Any, **_: Any) -> int:
    """A weighted sum of table rows: one multiply-add for each number of each row."""
    return 2 * prod(index) * table[1]


#: Operations that torch's counter does not know, all of them sampling: floating-point operations from their shapes.
SAMPLING: dict[Any, Callable[..., int]] = {
    aten.grid_sampler_2d: _four_rows_an_output,
    aten.upsample_bilinear2d: _four_rows_an_output,
    aten._embedding_bag: _rows_of_a_table,
    aten._embedding_bag_forward_only: _rows_of_a_table,
}


def _attention(query: Any, key: Any, value: Any, *shapes: Any, out_shape: Any = None, **_: Any) -> int:
    from torch.utils.flop_counter import sdpa_flop_count

    return sdpa_flop_count(query, key, value)


#: The CPU's fused attention, which torch's counter leaves out.
ATTENTION: dict[Any, Callable[..., int]] = {aten._scaled_dot_product_flash_attention_for_cpu: _attention}


@torch.no_grad()
def count_operations(module: nn.Module, *inputs: Tensor) -> dict[str, Any]:
    """Parameters, and multiply-adds (in billions) for these inputs.

    Counted are convolutions, matrix products (linear layers, attention), and sampling: 4 an output number for bilinear
    sampling, 25 for CARAFE's reassembly. Not counted, in any candidate: norms, activations, additions, and the
    arithmetic of the sampling positions.

    Args:
        module (nn.Module): In eval mode.
        *inputs (Tensor): What its ``forward`` takes; not made in inference mode.

    Returns:
        dict: ``parameters``, ``gmacs``, ``gmacs_sampling``, and ``gmacs_by_operation``, by torch's names of them.

    Example:
        >>> counted = count_operations(nn.Conv2d(8, 16, 3, padding=1).eval(), torch.rand(1, 8, 10, 10))
        >>> counted["parameters"], round(counted["gmacs"] * 1e9)  # 16 x 10 x 10 numbers of 8 x 3 x 3 products
        (1168, 115200)
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False, custom_mapping={**SAMPLING, **ATTENTION}) as counter:
        module(*inputs)
    gmacs = {operation: flops / 2e9 for operation, flops in counter.get_flop_counts().get("Global", {}).items()}
    return {
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "gmacs": sum(gmacs.values()),
        "gmacs_sampling": sum(gmacs.get(operation, 0) for operation in SAMPLING),
        "gmacs_by_operation": {str(operation).removeprefix("aten."): value for operation, value in gmacs.items()},
    }


def peak_memory(device: torch.device) -> float:
    """Peak memory of this process so far, in MiB: of everything on a CPU, of tensors on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 2**20
    status = Path("/proc/self/status")
    if status.is_file():  # Linux, where ru_maxrss of a process starts at the peak of the one that started it
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
