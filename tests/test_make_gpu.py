"""Every step of ``make gpu`` on the CPU, with the device and the runtime of the engines as the only difference.

What a GPU or TensorRT does with them is not shown here.
"""

import json
import math
import tempfile
from pathlib import Path

import pytest
import torch

from scripts import gpu
from scripts.speed_docs import GPU_STEPS, gpu_section, with_gpu_section
from tests.conftest import ROOT
from tests.small_models import SMALL
from yolov10_dysample.study import benchmark
from yolov10_dysample.study.settings import OURS, STOCK
from yolov10_dysample.study.tasks import TASKS


@pytest.fixture
def small_models(tmp_path, monkeypatch):
    """A small YOLOv10 and its DySample twin in place of the stock names."""
    files = []
    for name, row in ((STOCK, 'nn.Upsample, [None, 2, "nearest"]'), (OURS, "DySample, [2]")):
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(SMALL.format(row=row, head="v10Detect, [1]"))
    monkeypatch.setattr(gpu, "MODELS", tuple(map(str, files)))
    monkeypatch.setattr(gpu, "ROUNDS", 2)
    return files


def test_without_a_gpu_it_ends_with_one_line_and_status_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["gpu", "--out", str(tmp_path / "gpu.json")])
    assert gpu.main() == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert "make gpu needs an NVIDIA GPU" in printed.err
    assert not printed.out
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_tests_of_the_operator_are_counted(tmp_path):
    assert gpu.run_tests(tmp_path, "tests/test_device.py", "-k", "gradients_are") == {"passed": 2}


@pytest.mark.slow
@pytest.mark.parametrize("line", ["assert False", "pytest.skip()"])
def test_a_test_that_fails_or_is_skipped_is_no_pass(tmp_path, line):
    (tmp_path / "test_it.py").write_text(f"import pytest\ndef test_it(): {line}\ndef test_that(): pass\n")
    with pytest.raises(RuntimeError, match="of 2 tests failed and"):
        gpu.run_tests(tmp_path, str(tmp_path / "test_it.py"), f"--rootdir={tmp_path}")


@pytest.mark.slow
def test_an_epoch_ends_with_finite_losses(tmp_path):
    found = gpu.train_an_epoch(tmp_path, "cpu")
    assert found["devices"] == "cpu"
    assert found["losses"]
    assert all(math.isfinite(loss) for loss in found["losses"].values())


@pytest.mark.slow
def test_the_benchmark_is_the_command_of_everybody(small_models, tmp_path, monkeypatch):
    def run_task(task, settings, report, *arguments):
        with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as here:
            patch.chdir(here)
            return TASKS[task](settings, report, *arguments)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "compile", lambda model, **options: model)  # test_benchmark looks at what is asked for
    monkeypatch.setattr(benchmark, "run_task", run_task)
    less = ("imgsz=32", "grow=32", "grow_batch=1", "rounds=2", "memory_runs=1", "threads=1", "skip=operator")
    words = [word.replace("=640", "=32").replace("=16", "=1") for word in gpu.BENCHMARK]
    record = gpu.run_benchmark(tmp_path, "cpu", f"model={small_models[0]}", *words, *less)
    assert record["settings"]["amp"] is True
    assert set(record["model"]["runtimes"]) == {"torch", "compile"}
    assert set(record["growth"]) == {"torch"}
    assert "ratio" in record["train"]["step"][OURS]


def test_a_benchmark_that_does_not_end_well_is_no_result(tmp_path):
    with pytest.raises(RuntimeError, match="benchmark did not end well"):
        gpu.run_benchmark(tmp_path, "cpu", "model=no-such-model")


@pytest.mark.slow
def test_engines_of_every_precision_are_compared_and_timed(small_models, tmp_path):
    found = gpu.measure_engines(tmp_path / "engines", "cpu", "onnx", 64)["precisions"]
    assert list(found) == ["float32", "float16", "int8"]
    for arms in found.values():
        assert [set(arms[arm]) for arm in (STOCK, OURS)] == [{"errors", "ms", "ratio"}] * 2
    of_precision = {name: max(arms[OURS]["errors"].values()) for name, arms in found.items()}
    assert of_precision["float32"] < 1e-4 < of_precision["float16"] < of_precision["int8"] < 1


def fails(folder):
    raise OSError("no such device\nand a second line")


def test_a_step_that_fails_is_named_and_the_others_are_taken():
    record = gpu.take_steps({"training": fails, "tests": lambda folder: {"passed": 3}})
    assert record == {"training": {"failed": "OSError: no such device\nand a second line"}, "tests": {"passed": 3}}


def test_the_section_shows_every_step():
    engine = {"errors": {"boxes": 0.001, "scores": 0.002}, "ms": {"median": 2.0}, "ratio": dict(median=1, q1=1, q3=1)}
    steps = {
        "tests": lambda folder: {"passed": 3},
        "training": fails,
        "benchmark": lambda folder: {**json.loads((ROOT / "results/speed.json").read_text()), "growth": {}},
        "engines": lambda folder: {
            "format": "engine",
            "imgsz": 640,
            "precisions": {"float16": {STOCK: {"failed": "no TensorRT"}, OURS: engine}},
        },
    }
    assert set(steps) == set(GPU_STEPS)
    record = {
        **{"command": "make gpu", "gpus": 2, "cuda": "13.0", "date": "2026-12-01T", "revision": "abc"},
        **{"machine": {"gpu": "NVIDIA L4"}, "versions": {"torch": "2.14.1", "ultralytics": "8.4.190"}},
        **gpu.take_steps(steps),
    }
    assert gpu.failures(record) == ["training", "float16 of stock"]
    section = gpu_section(record)
    assert "2 x NVIDIA L4, CUDA 13.0" in section
    assert "| tests | 3 tests of the operator passed |" in section
    assert "| training | fails: OSError: no such device |" in section
    assert "| PyTorch, as `yolo predict` |" in section
    assert "| float16 | fails | 2 | 1.00 [1.00, 1.00] | fails | 0.002 |" in section


def test_the_docs_have_what_the_record_gives_or_that_there_is_none():
    file = ROOT / "results/gpu.json"
    record = json.loads(file.read_text()) if file.is_file() else None
    document = (ROOT / "docs/speed.md").read_text(encoding="utf-8")
    assert with_gpu_section(document, record) == document, "run: python -m scripts.speed_docs"
    assert record or "None of this was run on a GPU by us" in document
    assert Path(ROOT / "docs/export.md").read_text().count("make gpu") == 1
