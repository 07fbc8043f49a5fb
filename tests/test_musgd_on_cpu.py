"""MuSGD of scripts/musgd_on_cpu.py: the same steps, on a CPU that cannot multiply in bfloat16, and in every run."""

from __future__ import annotations

import re
import sys

import pytest
import torch
from ultralytics.optim import MuSGD, muon

from scripts.musgd_on_cpu import NOTE, multiply_in_float32
from tests.conftest import ROOT, run
from yolov10_dysample.study.comparison import known_of


def _steps(shapes: list[tuple[int, ...]]) -> list[torch.Tensor]:
    """Parameters after three steps of MuSGD."""
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    optimizer = MuSGD([{"params": parameters, "lr": 0.01, "momentum": 0.9, "use_muon": True}])
    for _ in range(3):
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


def test_steps_are_musgds_own_to_the_rounding_of_bfloat16(monkeypatch):
    shapes = [(32, 16, 3, 3), (16, 48, 1, 1), (40, 40)]
    own = _steps(shapes)
    monkeypatch.setattr(muon, "zeropower_via_newtonschulz5", muon.zeropower_via_newtonschulz5)
    multiply_in_float32()
    here = _steps(shapes)
    torch.manual_seed(0)
    start = [torch.randn(shape) for shape in shapes]
    for first, last, other in zip(start, own, here, strict=True):
        step = (last - first).norm()
        assert (last - other).norm() < 2**-6 * step  # bfloat16 keeps 8 bits, and five rounds of products lose some


def test_products_are_computed_in_float32(monkeypatch):
    dtypes = []
    monkeypatch.setattr(muon, "zeropower_via_newtonschulz5", muon.zeropower_via_newtonschulz5)
    multiply_in_float32()

    class Seen(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.overloadpacket in (torch.ops.aten.bmm, torch.ops.aten.baddbmm, torch.ops.aten.mm):
                dtypes.append(args[-1].dtype)
            return func(*args, **(kwargs or {}))

    with Seen():
        found = muon.zeropower_via_newtonschulz5(torch.randn(2, 8, 16))
    assert dtypes == [torch.float32] * 15
    assert found.dtype == torch.bfloat16


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [["optimizer=AdamW", "device=cpu"], ["optimizer=MuSGD"], ["optimizer=MuSGD", "device=cpu", "ray=auto"]]
)
def test_what_it_would_note_wrongly_is_refused(words, tmp_path):
    command = (sys.executable, "-m", "scripts.musgd_on_cpu", "data=d.yaml", f"out={tmp_path}", *words)
    printed = run(*command, cwd=ROOT, ok=False)
    assert printed.startswith("must be given optimizer=MuSGD and device=cpu, and no ray=, got data=d.yaml out=")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_each_run_of_a_comparison_multiplies_so(tmp_path, photographs):
    words = (f"data={photographs}", "optimizer=MuSGD", "arms=nearest", "seeds=0", "imgsz=64", "epochs=1", "device=cpu")
    run(sys.executable, "-m", "scripts.musgd_on_cpu", *words, f"out={tmp_path}", cwd=ROOT)
    assert known_of(tmp_path).runs["nearest", 0]["products_of_musgd"] == NOTE
    (log,) = (tmp_path / "logs").iterdir()
    assert re.search(r"optimizer:\S* MuSGD\(", log.read_text())
