"""The benchmark measures what it says, names what it cannot measure, and the README's section is the record's.

No time is asserted here: what is fast on one machine is not on another.
"""

import copy
import importlib.util
import json
import math
import os
import sys

import pytest
import torch
from torch import nn

from scripts import benchmark, speed_report
from scripts.benchmark import ADAPTED, OURS, PUBLISHED, STOCK, UPSAMPLERS
from tests.conftest import ROOT, run

#: Sides of the six maps of 256 channels that SegFormer-B1 upsamples for an image of 512 pixels: the paper's comparison.
SEGFORMER = (16, 32, 64, 32, 64, 64)


@pytest.mark.parametrize(
    ("name", "gmacs", "millions"),
    [
        ("nearest", 0, 0),
        ("deconvolution", 34.4 / 4, 3.5),  # the paper counts all nine weights at every output pixel; a quarter is used
        ("pixel shuffle", 34.4, 14.2),
        ("carafe", 1.45, 0.44),
        ("dysample", 0.12 + 0.06, 0.049),
        ("dysample+", 0.24 + 0.06, 0.098),
        ("dysample-s", 0.06 + 0.06, 0.0062),
        ("dysample-s+", 0.12 + 0.06, 0.0124),
        (PUBLISHED, 0.12 + 0.06, 0.049),
    ],
)
def test_multiply_adds_and_parameters_are_those_of_the_paper(name, gmacs, millions):
    module = UPSAMPLERS[name](256).eval()
    found = [benchmark.count(module, torch.zeros(1, 256, side, side)) for side in SEGFORMER]
    assert sum(entry["gmacs"] for entry in found) == pytest.approx(gmacs, rel=0.02)
    assert sum(entry["parameters"] for entry in found) / 1e6 == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize("name", list(UPSAMPLERS))
def test_every_upsampler_doubles_the_sides(name):
    y = UPSAMPLERS[name](32).eval()(torch.rand(2, 32, 5, 4))
    assert y.shape == (2, 32, 10, 8)


@torch.no_grad()
def test_carafe_is_its_definition():
    torch.manual_seed(0)
    carafe = benchmark.Carafe(6).double()
    x = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    kernels = nn.functional.pixel_shuffle(carafe.encode(carafe.compress(x)), 2).softmax(1)
    padded = nn.functional.pad(x, [2] * 4)
    expected = torch.stack(
        [
            torch.stack(
                [
                    torch.einsum(
                        "bcn,bn->bc",
                        padded[:, :, i // 2 : i // 2 + 5, j // 2 : j // 2 + 5].flatten(2),
                        kernels[:, :, i, j],
                    )
                    for j in range(8)
                ],
                dim=-1,
            )
            for i in range(6)
        ],
        dim=-2,
    )
    torch.testing.assert_close(carafe(x), expected)


@torch.no_grad()
def test_the_published_code_is_adapted_without_being_changed():
    modules = benchmark.upsamplers(32, torch.randn(1, 32, 5, 4))
    x = torch.randn(2, 32, 5, 4)
    expected = modules[PUBLISHED](x)
    assert torch.equal(modules[ADAPTED](x), expected)
    torch.testing.assert_close(modules["dysample"](x), expected, rtol=0, atol=1e-5)

    last = torch.channels_last
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        modules[PUBLISHED].to(memory_format=last)(x.to(memory_format=last))
    adapted = modules[ADAPTED].to(memory_format=last)(x.to(memory_format=last))
    torch.testing.assert_close(adapted, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_offsets_are_spread_as_the_record_says():
    x = torch.randn(1, 64, 20, 20)
    for name in ("dysample", "dysample+", "dysample-s", "dysample-s+"):
        layer = benchmark.upsamplers(64, x)[name]
        features = nn.functional.pixel_shuffle(x, 2) if layer.style == "pl" else x
        assert float(layer.offset(features).std() / 4) == pytest.approx(benchmark.OFFSET_SPREAD, rel=1e-3)


def test_all_candidates_run_in_every_round_and_ratios_are_taken_round_by_round():
    calls = []
    runs = {name: lambda name=name: calls.append(name) for name in (STOCK, OURS)}
    times = benchmark.take_turns(runs, 5, torch.device("cpu"), lambda done, total: None)
    assert {name: len(values) for name, values in times.items()} == {STOCK: 5, OURS: 5}
    assert set(calls) == {STOCK, OURS}

    figures = benchmark.compared({STOCK: [1.0, 10.0, 2.0], OURS: [2.0, 20.0, 4.0]}, "ms", STOCK)
    assert figures[OURS]["ratio"] == {"median": 2.0, "q1": 2.0, "q3": 2.0}
    assert figures[OURS]["ms"] == {"median": 4.0, "q1": 3.0, "q3": 12.0}


def test_a_candidate_that_fails_is_named_and_the_others_run():
    def prepare(name):
        if name == PUBLISHED:
            raise RuntimeError("view size is not compatible\nand a second line")
        return (lambda: None), {"bytes": 1}

    runs, facts = benchmark.whatever_runs((STOCK, PUBLISHED), prepare)
    assert list(runs) == [STOCK]
    assert facts == {STOCK: {"bytes": 1}, PUBLISHED: {"failed": "RuntimeError: view size is not compatible"}}


@pytest.mark.parametrize(
    ("runtime", "device", "words"),
    [
        ("ncnn", "cpu", "not installed: pip install pnnx==20260526"),
        ("ncnn", "0", "not installed: pip install pnnx==20260526"),
        ("openvino", "0", "runs on the CPU only: use --device cpu"),
        ("openvino", "cpu", None),
        ("eager", "0", None),
    ],
)
def test_why_a_runtime_cannot_be_measured(monkeypatch, runtime, device, words):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pnnx" else object())
    assert benchmark.missing(runtime, device) == words


def test_a_missing_runtime_is_named_in_the_record_the_progress_and_the_report(monkeypatch, capsys):
    options = vars(benchmark.parser().parse_args(["--runtimes", "mnn", "--skip", "operator,train"]))
    options.pop("out")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    counts = {"parameters": 1, "gmacs": 1.0, "gmacs_sampling": 0.0}
    monkeypatch.setattr(
        benchmark,
        "run_child",
        lambda task, settings: {name: counts for name in (STOCK, OURS, PUBLISHED)} if task == "size" else 1.0,
    )
    record = benchmark.measure(benchmark.Settings(**options), benchmark.Progress(sys.stderr))
    assert record["model"]["runtimes"] == {"mnn": {"missing": "not installed: pip install onnx onnxslim MNN"}}
    assert "mnn: not installed: pip install onnx onnxslim MNN" in capsys.readouterr().err
    row = ["MNN", "not installed: pip install onnx onnxslim MNN", "", "", "", ""]
    assert speed_report.runtimes_table(record)[1] == row
    assert "not installed" in speed_report.aligned(speed_report.runtimes_table(record))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--imgsz", "100"], ["--imgsz", "a multiple of 32", "'100'", "96 would do"]),
        (["--imgsz", "small"], ["--imgsz", "a multiple of 32", "'small'", "32 would do"]),
        (["--batch", "0"], ["--batch", "at least 1", "'0'", "1 would do"]),
        (["--threads", "99999"], ["--threads", "a whole number, 1 to", "'99999'"]),
        (["--rounds", "1"], ["--rounds", "at least 2", "'1'", "2 would do"]),
        (["--sizes", "10,x"], ["--sizes", "a whole number", "'x'"]),
        (["--runtimes", "onnx,tensorrt"], ["--runtimes", "some of eager,torchscript", "'tensorrt'"]),
        (["--skip", "export"], ["--skip", "some of model,operator,train", "'export'"]),
        (["--device", "7777"], ["--device", "cpu or the index", "'7777'"]),
        (["--device", "cuda"], ["--device", "cpu or the index", "'cuda'"]),
        (["--model", "yolo99n"], ["--model", "stock detection model", "'yolo99n'", "write yolov10n"]),
        (["--model", "yolo11n-seg"], ["--model", "stock detection model", "'yolo11n-seg'", "write yolov10n"]),
        (["--model", "yolo11n-cls"], ["--model", "stock detection model", "'yolo11n-cls'", "write yolov10n"]),
        (["--out", "speed.txt"], ["--out", "must end in .json", "'speed.txt'"]),
        (["--speed"], ["unrecognized arguments: --speed", "--help"]),
    ],
)
def test_a_wrong_argument_gets_one_line_with_rule_value_and_way_out(arguments, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(arguments)
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert error.count("\n") == 1
    assert all(word in error for word in words), error


def test_a_model_may_be_named_with_its_endings():
    names = ("yolov10n", "yolov10n.yaml", "yolov10n-dysample", "yolov10n-dysample.yaml")
    assert {benchmark.parser().parse_args(["--model", name]).model for name in names} == {"yolov10n"}


SPREAD = {"median", "q1", "q3"}
THREADS = min(2, os.cpu_count() or 1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """What a tiny run printed, its record and its folder."""
    folder = tmp_path_factory.mktemp("speed")
    options = {"imgsz": 64, "rounds": 2, "sizes": 10, "threads": THREADS, "runtimes": "eager,torchscript,onnx"}
    options |= {"train-imgsz": 64, "train-batch": 1, "memory-runs": 1, "out": folder / "speed.json"}
    arguments = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    printed = run(sys.executable, ROOT / "scripts/benchmark.py", *arguments, cwd=folder)
    return printed, json.loads((folder / "speed.json").read_text()), folder


@pytest.mark.slow
def test_a_run_records_everything(tiny):
    _, record, _ = tiny
    assert {"command", "date", "revision", "machine", "versions", "settings", "seconds"} < set(record)
    assert {"cpu", "cores", "system"} < set(record["machine"])
    assert {"python", "torch", "ultralytics", "onnxruntime", "yolov10-dysample"} < set(record["versions"])
    assert record["settings"]["threads"] == THREADS
    assert record["command"].startswith("python scripts/benchmark.py --imgsz 64 --rounds 2")

    model, train, operator = record["model"], record["train"], record["operator"]
    assert {name: runtime["detail"] for name, runtime in model["runtimes"].items()} == {
        "eager": f"torch, channels_last, {THREADS} threads",
        "torchscript": f"torch, {THREADS} threads",
        "onnx": f"CPUExecutionProvider, {THREADS} threads",
    }
    assert "view size" in model["runtimes"]["eager"]["candidates"][PUBLISHED]["failed"]
    for found in (
        *(model["runtimes"]["eager"]["candidates"][name] for name in (STOCK, OURS, ADAPTED)),
        *(model["runtimes"]["onnx"]["candidates"][name] for name in (STOCK, OURS, PUBLISHED)),
        *(train["step"][name] for name in (STOCK, OURS, PUBLISHED)),
    ):
        assert set(found["ms"]) == set(found["ratio"]) == SPREAD
    files = {name: found["bytes"] for name, found in model["runtimes"]["onnx"]["candidates"].items()}
    assert files[STOCK] < files[OURS]
    assert model["size"][OURS]["parameters"] - model["size"][STOCK]["parameters"] == 12_352
    assert model["size"][STOCK]["gmacs"] < model["size"][OURS]["gmacs"]
    for memory in (model["memory"], train["memory"]):
        assert all(set(found["mib"]) == set(found["ratio"]) == SPREAD for found in memory.values())

    assert [tuple(e["shape"]) for e in operator["shapes"]] == list(benchmark.SHAPES) * 2
    assert [e["shape"] for e in operator["sweep"]] == [[1, 128, 10, 10]]
    assert [tuple(e["shape"]) for e in operator["onnxruntime"]] == list(benchmark.YOLO_SHAPES)
    assert set(operator["ours_over_published"]) == {"channels_last", "contiguous"}
    for entry in (*operator["shapes"], *operator["sweep"], *operator["onnxruntime"]):
        assert set(entry["ours_over_published"]) == SPREAD
        assert entry["largest_difference"] < 1e-3
    for entry in operator["shapes"]:
        left_out = {ADAPTED} if entry["memory_format"] == "contiguous" else set()
        assert set(entry["candidates"]) == set(UPSAMPLERS) - left_out


@pytest.mark.slow
def test_every_number_of_a_run_is_finite_and_no_time_is_zero(tiny):
    def numbers(value, path=""):
        if isinstance(value, dict):
            return [found for key, inner in value.items() for found in numbers(inner, f"{path}/{key}")]
        if isinstance(value, list):
            return [found for inner in value for found in numbers(inner, path)]
        return [(path, value)] if isinstance(value, (int, float)) else []

    found = numbers(tiny[1])
    assert all(math.isfinite(value) for _, value in found)
    assert all(value > 0 for path, value in found if "/ms/" in path or "/mib/" in path or "/ratio/" in path)


@pytest.mark.slow
def test_a_run_shows_its_progress_a_table_and_a_plot(tiny):
    printed, record, folder = tiny
    for stage in ("eager, channels_last: timing", "onnx: exporting", "training step: timing", "operators, onnxruntime"):
        assert stage in printed
    assert speed_report.terminal(record) in printed
    assert (folder / "speed.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize("part", benchmark.PARTS)
def test_a_record_without_a_skipped_part_is_reported_too(tiny, part, tmp_path):
    record = copy.deepcopy(tiny[1])
    del record[part]
    assert speed_report.terminal(record)
    speed_report.plot(record, tmp_path / "speed.png")
    assert (tmp_path / "speed.png").is_file()


def test_the_readme_has_what_the_record_gives():
    record = json.loads((ROOT / "results/speed.json").read_text())
    readme = (ROOT / "README.md").read_text()
    assert speed_report.with_section(readme, record) == readme, "run: python scripts/speed_report.py --readme README.md"
    assert readme.index("## Speed") < readme.index(speed_report.BEGIN) < readme.index("## Limits")
    assert (ROOT / "results/speed.png").is_file()


def test_the_committed_record_is_of_a_full_default_run_with_every_runtime():
    record = json.loads((ROOT / "results/speed.json").read_text())
    defaults = vars(benchmark.parser().parse_args([]))
    del defaults["out"], defaults["threads"]  # the default of the latter is the machine's
    assert record["settings"]["threads"] == 2
    assert {key: record["settings"][key] for key in defaults} == defaults
    assert {"missing", "failed"}.isdisjoint(key for r in record["model"]["runtimes"].values() for key in r)
