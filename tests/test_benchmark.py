"""The benchmark measures what it says, names what it cannot measure, and the README's section is the record's.

No time is asserted here: what is fast on one machine is not on another.
"""

import contextlib
import importlib.util
import io
import itertools
import json
import math
import os
import platform
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.utils.torch_utils import attempt_compile

from scripts import profile_layers, speed_docs
from tests.conftest import ROOT, run
from tests.documents import documented
from tests.small_models import SMALL
from yolov10_dysample import use_dysample
from yolov10_dysample.commands import benchmark as benchmark_command
from yolov10_dysample.commands.benchmark import COMMAND, REFERENCE
from yolov10_dysample.commands.keys import UsageError
from yolov10_dysample.commands.main import main
from yolov10_dysample.dysample import DySample, dysample
from yolov10_dysample.exporting import traced_form
from yolov10_dysample.model_files import find_stock
from yolov10_dysample.study import (
    benchmark,
    exports,
    model_cost,
    operators,
    records,
    speed_plot,
    speed_report,
    tasks,
    timing,
)
from yolov10_dysample.study.candidates import Twins, load, make_training_step, make_twins
from yolov10_dysample.study.model_cost import count_operations
from yolov10_dysample.study.operators import SHAPES, YOLO_SHAPES, Carafe, make_upsamplers
from yolov10_dysample.study.progress import Reporter
from yolov10_dysample.study.settings import (
    ADAPTED,
    OFFSET_SPREAD,
    ON_REQUEST,
    OURS,
    PARTS,
    PUBLISHED,
    STOCK,
    Settings,
    predicting_format,
    why_missing,
)
from yolov10_dysample.study.statistics import compared
from yolov10_dysample.study.tables import aligned, markdown
from yolov10_dysample.study.tasks import TASKS
from yolov10_dysample.study.timing import prepare_candidates

PUBLISHED_FILE = str(ROOT / REFERENCE)
#: Sides of the six maps of 256 channels that SegFormer-B1 upsamples for an image of 512 pixels: the paper's comparison.
SEGFORMER = (16, 32, 64, 32, 64, 64)


def upsamplers(channels, side=4):
    return make_upsamplers(channels, torch.randn(1, channels, side, side), OFFSET_SPREAD, PUBLISHED_FILE)


UPSAMPLERS = tuple(upsamplers(32))


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
    module = upsamplers(256)[name]
    found = [count_operations(module, torch.zeros(1, 256, side, side)) for side in SEGFORMER]
    assert sum(entry["gmacs"] for entry in found) == pytest.approx(gmacs, rel=0.02)
    assert sum(entry["parameters"] for entry in found) / 1e6 == pytest.approx(millions, rel=0.02)


@torch.no_grad()
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_sampling_costs_four_multiply_adds_a_number_in_both_memory_formats(layout):
    x = torch.rand(2, 32, 6, 5).to(memory_format=layout)
    layer = DySample(32).to(memory_format=layout)
    expected = 4 * 2 * 32 * 12 * 10 / 1e9
    assert count_operations(layer, x)["gmacs_sampling"] == pytest.approx(expected)
    assert count_operations(nn.Upsample(scale_factor=2, mode="bilinear"), x)["gmacs_sampling"] == pytest.approx(
        expected
    )


def test_multiply_adds_are_those_of_the_record_and_attention_is_counted_too():
    record = json.loads((ROOT / "results/speed.json").read_text())["model"]["size"]
    attention = 2 * 400 * 400 * (32 + 64) / 1e9  # at 640 px: 2 heads of 32 and 64 channels, 400 positions
    for name, model in ((STOCK, "yolov10n"), (OURS, "yolov10n-dysample")):
        network = YOLO(f"{model}.yaml", verbose=False).model.eval().fuse(verbose=False)
        found = count_operations(network, torch.zeros(1, 3, 640, 640))
        assert found["gmacs_by_operation"]["bmm"] == pytest.approx(attention)
        assert found["gmacs"] == pytest.approx(record[name]["gmacs"], rel=1e-9)
        assert found["parameters"] == record[name]["parameters"]


def test_fused_attention_is_counted():
    class Attention(nn.Module):
        def forward(self, q):
            return nn.functional.scaled_dot_product_attention(q, q, q)

    found = count_operations(Attention(), torch.rand(1, 2, 10, 16))
    assert found["gmacs"] * 1e9 == pytest.approx(2 * 2 * 10 * 10 * 16)


@pytest.mark.slow
def test_the_peak_of_a_process_is_its_own_and_not_that_of_the_one_that_started_it():
    child = (
        "import torch; from yolov10_dysample.study import model_cost as m; print(m.peak_memory(torch.device('cpu')))"
    )
    parent = (
        f"import subprocess, sys; large = b'x' * 2**30; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    )
    peak = float(run(sys.executable, "-c", parent, cwd=ROOT).splitlines()[-1])
    assert 20 < peak < 2**10


@pytest.mark.parametrize("name", UPSAMPLERS)
def test_every_upsampler_doubles_the_sides(name):
    y = upsamplers(32)[name](torch.rand(2, 32, 5, 4))
    assert y.shape == (2, 32, 10, 8)


@torch.no_grad()
def test_carafe_is_its_definition():
    torch.manual_seed(0)
    carafe = Carafe(6).double()
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
    modules = upsamplers(32)
    x = torch.randn(2, 32, 5, 4)
    expected = modules[PUBLISHED](x)
    assert torch.equal(modules[ADAPTED](x), expected)
    torch.testing.assert_close(modules["dysample"](x), expected, rtol=0, atol=1e-5)

    last = torch.channels_last
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        modules[PUBLISHED].to(memory_format=last)(x.to(memory_format=last))
    adapted = modules[ADAPTED].to(memory_format=last)(x.to(memory_format=last))
    torch.testing.assert_close(adapted, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in UPSAMPLERS if name.startswith("dysample")])
@torch.no_grad()
def test_offsets_are_spread_as_the_record_says(name):
    x = torch.randn(1, 64, 20, 20)
    layer = make_upsamplers(64, x, OFFSET_SPREAD, None)[name]
    offset = layer.predict_offset(x)
    along_x = torch.arange(20.0).expand(1, layer.groups, 20, 20)  # a map of places: what is read says where from
    moved = [
        (dysample(places, offset) - nn.functional.interpolate(places, scale_factor=2, mode="bilinear"))[..., 4:-4, 4:-4]
        for places in (along_x, along_x.mT)
    ]
    assert torch.stack(moved).std().item() == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("seconds", [0, 0.001, 1])
def test_all_candidates_run_in_every_round_also_by_a_clock_that_stands_still(monkeypatch, seconds):
    clock, calls, rounds = itertools.count(step=seconds), [], []
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    runs = {name: lambda name=name: calls.append(name) for name in (STOCK, OURS)}

    def tell(done, total):
        rounds.append(set(calls))
        calls.clear()

    times = timing.time_interleaved(runs, 5, torch.device("cpu"), tell)
    assert {name: len(values) for name, values in times.items()} == {STOCK: 5, OURS: 5}
    assert rounds == [{STOCK, OURS}] * 5
    assert calls == []


def test_a_gpu_is_waited_for_before_the_clock_is_read(monkeypatch):
    events = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: events.append("waited"))
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: events.append("read") or 0.0))
    timing.time_interleaved({"one": lambda: events.append("ran")}, 1, torch.device("cuda"), lambda *told: None)
    assert {"ran", "waited", "read"} == {*events}
    assert ("ran", "read") not in itertools.pairwise(events)


def test_each_round_has_an_order_of_its_own():
    calls, orders = [], []

    def tell(*told):
        orders.append("".join(dict.fromkeys(calls)))
        calls.clear()

    runs = {name: lambda name=name: calls.append(name) for name in "abc"}
    timing.time_interleaved(runs, 20, torch.device("cpu"), tell)
    assert len(set(orders[1:])) == 6  # after the first, which has the warm-up in it


def test_ratios_are_taken_round_by_round():
    figures = compared({STOCK: [1.0, 10.0, 2.0], OURS: [2.0, 20.0, 4.0]}, "ms", STOCK)
    assert figures[OURS]["ratio"] == {"median": 2.0, "q1": 2.0, "q3": 2.0}
    assert figures[OURS]["ms"] == {"median": 4.0, "q1": 3.0, "q3": 12.0}


@pytest.mark.parametrize(
    ("device", "machine", "expected"),
    [
        ("cpu", "x86_64", torch.channels_last),
        ("cpu", "arm64", torch.contiguous_format),
        ("cuda", "x86_64", torch.contiguous_format),
    ],
)
def test_a_model_is_timed_in_the_memory_format_that_yolo_predict_runs_it_in(device, machine, expected, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(sys, "platform", "linux")
    assert predicting_format(torch.device(device)) == expected


def test_a_release_that_has_no_choice_of_memory_format_predicts_in_nchw(monkeypatch):
    class Before:
        def __init__(self, weights="yolo11n.pt", device=None, fuse=True):
            pass

    monkeypatch.setattr("ultralytics.nn.autobackend.AutoBackend", Before)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(sys, "platform", "linux")
    assert predicting_format(torch.device("cpu")) == torch.contiguous_format


@pytest.mark.skipif(sys.platform == "darwin", reason="Ultralytics predicts in NCHW there")
def test_this_machines_memory_format_is_that_of_ultralytics():
    from ultralytics.nn.autobackend import AutoBackend

    weight = next(AutoBackend(YOLO("yolov10n.yaml").model).backend.model.model[1].conv.parameters())
    assert weight.is_contiguous(memory_format=predicting_format(torch.device("cpu")))


def test_a_candidate_that_fails_is_named_and_the_others_run():
    def prepare(name):
        if name == PUBLISHED:
            raise RuntimeError("view size is not compatible\nand a second line")
        return (lambda: None), {"bytes": 1}

    runs, facts = prepare_candidates((STOCK, PUBLISHED), prepare)
    assert list(runs) == [STOCK]
    assert facts == {STOCK: {"bytes": 1}, PUBLISHED: {"failed": "RuntimeError: view size is not compatible"}}


@pytest.mark.parametrize(
    ("runtime", "device", "words"),
    [
        ("ncnn", "cpu", "not installed: pip install pnnx==20260526"),
        ("ncnn", "0", "not installed: pip install pnnx==20260526"),
        ("openvino", "0", "runs on the CPU only: use device=cpu"),
        ("openvino", "cpu", None),
        ("torch", "0", None),
        ("onnx", "cpu", None),
        ("onnx", "0", "runs on the CPU only as installed: pip uninstall onnxruntime, then pip install onnxruntime-gpu"),
    ],
)
def test_why_a_runtime_cannot_be_measured(monkeypatch, runtime, device, words):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pnnx" else object())
    no_cuda = SimpleNamespace(get_available_providers=lambda: ["CPUExecutionProvider"])
    monkeypatch.setitem(sys.modules, "onnxruntime", no_cuda)
    assert why_missing(runtime, device) == words


def test_runtimes_that_few_environments_have_are_measured_on_request_only():
    assert {"litert", "executorch"}.isdisjoint(COMMAND.values([])["formats"])
    assert COMMAND.values(["formats=executorch,litert"])["formats"] == ["executorch", "litert"]


class LiteRt:
    """LiteRT's interpreter, of a model that doubles its input."""

    def __init__(self, file, num_threads):
        self.made_with = (file, num_threads)
        self.tensors = None

    def allocate_tensors(self):
        self.tensors = {}

    def get_input_details(self):
        return [{"index": 7}]

    def get_output_details(self):
        return [{"index": 9}]

    def set_tensor(self, index, value):
        self.tensors[index] = value

    def invoke(self):
        self.tensors[9] = 2 * self.tensors[7]

    def get_tensor(self, index):
        return self.tensors[index]


def test_a_litert_file_is_run_with_the_images_and_threads_of_the_settings(monkeypatch, tmp_path):
    made = []
    module = SimpleNamespace(Interpreter=lambda *words, **more: made.append(LiteRt(*words, **more)) or made[-1])
    monkeypatch.setitem(sys.modules, "ai_edge_litert", SimpleNamespace(interpreter=module))
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", module)
    images = torch.rand(1, 3, 4, 4)
    run, detail = exports.open_litert(tmp_path / "m.tflite", images, settings(threads=1))
    assert torch.equal(torch.from_numpy(run()[0]), 2 * images)
    assert made[0].made_with == (str(tmp_path / "m.tflite"), 1)
    assert detail == "1 threads"


def test_an_executorch_folder_is_run_with_the_images(monkeypatch, tmp_path):
    (tmp_path / "m.pte").touch()
    method = SimpleNamespace(execute=lambda given: [2 * given[0]])
    loaded = SimpleNamespace(load_program=lambda file: SimpleNamespace(load_method=lambda name: found(file, name)))

    def found(file, name):
        assert (file, name) == (str(tmp_path / "m.pte"), "forward")
        return method

    module = SimpleNamespace(Runtime=SimpleNamespace(get=lambda: loaded))
    monkeypatch.setitem(sys.modules, "executorch", SimpleNamespace(runtime=module))
    monkeypatch.setitem(sys.modules, "executorch.runtime", module)
    images = torch.rand(1, 3, 4, 4)
    run, _ = exports.open_executorch(tmp_path, images, settings())
    assert torch.equal(run()[0], 2 * images)


def settings(**changed):
    """Those of a run that is over soon; ``changed`` are Settings' own."""
    values = COMMAND.values(["imgsz=64", "rounds=2", "train_imgsz=64", "train_batch=1", "memory_runs=1"])
    values |= {"stock": "yolov10n.yaml", "dysample": "yolov10n-dysample.yaml", "trained": False, **changed}
    return Settings(**{key: values[key] for key in Settings._fields})


def test_a_missing_runtime_is_named_in_the_record_the_progress_and_the_report(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    counts = {"parameters": 1, "gmacs": 1.0, "gmacs_sampling": 0.0}
    monkeypatch.setattr(
        benchmark,
        "run_task",
        lambda task, *others: {name: counts for name in (STOCK, OURS)} if task == "size" else 1.0,
    )
    record = benchmark.measure(settings(formats=["mnn"], skip=["growth", "operator", "train"]), Reporter())
    assert record["model"]["runtimes"] == {"mnn": {"missing": "not installed: pip install onnx onnxslim MNN"}}
    assert "mnn: not installed: pip install onnx onnxslim MNN" in capsys.readouterr().err
    row = ["MNN", "not installed: pip install onnx onnxslim MNN", "", "", ""]
    assert speed_report.runtimes_table(record)[1] == row
    assert "not installed" in aligned(speed_report.runtimes_table(record))


def test_a_runtime_that_crashes_on_the_published_code_is_measured_without_it(monkeypatch):
    def run_task(task, settings, report, *arguments):
        if task != "format":
            return 1.0
        if settings.reference:
            return {"failed": "the process ended with -11: it printed nothing"}
        return {"ncnn": {"detail": "", "candidates": {STOCK: {}, OURS: {}}}}

    monkeypatch.setattr(benchmark, "run_task", run_task)
    monkeypatch.setattr(benchmark, "why_missing", lambda name, device: None)
    asked = settings(formats=["ncnn"], skip=["growth", "operator", "train"], reference=PUBLISHED_FILE)
    candidates = benchmark.measure(asked, Reporter())["model"]["runtimes"]["ncnn"]["candidates"]
    assert candidates[PUBLISHED] == {"failed": "the process ended with -11: it printed nothing"}
    assert "failed" not in candidates[OURS]


def test_what_failed_is_named_in_the_report():
    failed = {"failed": "the process ended with 1: out of memory"}
    record = {**json.loads((ROOT / "results/speed.json").read_text()), "operator": failed}
    record["model"]["size"] = record["train"]["step"] = record["model"]["runtimes"]["onnx"] = failed
    assert speed_report.terminal(record).count(failed["failed"]) == 5  # two rows of sizes


def test_a_task_on_a_gpu_sees_it_alone_as_its_first(monkeypatch):
    started = []

    def start(command, env, **_):
        started.append((json.loads(command[4])["device"], env["CUDA_VISIBLE_DEVICES"]))
        raise OSError("not here")

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.setattr(benchmark.subprocess, "Popen", start)
    with pytest.raises(OSError, match="not here"):
        benchmark.run_task("format", settings(device="1"), lambda *told: None, "torch")
    assert started == [("0", "6")]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["nothing of that name", "predicting memory"])
def test_a_task_that_fails_says_why(task):
    broken = settings(stock="no-such-model.yaml")
    reason = benchmark.run_task(task, broken, lambda *told: None, *([STOCK] if " memory" in task else []))["failed"]
    assert reason.startswith("the process ended with 1: ")
    assert task in reason or "no-such-model.yaml" in reason


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["imgsz=100"], ["imgsz", "a multiple of 32", "'100'", "96 would do"]),
        (["imgsz=small"], ["imgsz", "a multiple of 32", "'small'", "32 would do"]),
        (["batch=0"], ["batch", "a whole number, at least 1", "'0'"]),
        (["threads=99999"], ["threads", "a whole number, 1 to", "'99999'"]),
        (["rounds=1"], ["rounds", "a whole number, at least 2", "'1'"]),
        (["sizes=10,x"], ["sizes", "a whole number", "'x'"]),
        (["formats=onnx,tensorrt"], ["formats", "one of torch, compile, torchscript", "'tensorrt'"]),
        (["skip=export"], ["skip", "one of model, growth, operator, train", "'export'"]),
        (["device=7777"], ["device", "cpu, or the index", "'7777'"]),
        (["device=cuda"], ["device", "cpu, or the index", "'cuda'"]),
        (["model=yolo99n"], ["model must be a stock model that upsamples", "'yolo99n'", "write yolov10n.yaml"]),
        (["model=yolo11n-seg"], ["Detect or v10Detect", "yolo11n-seg ends in Segment", "add skip=train"]),
        (["model=yolo11n-cls"], ["model must be", "yolo11n-cls", "nothing to swap"]),
        (["model=no-such.pt"], ["model must be a file that is there", "'no-such.pt'"]),
        (["model=no-such.yaml"], ["model must be a stock model", "a model YAML or a .pt file", "'no-such.yaml'"]),
        (["model=plain.yaml"], ["model must be a model YAML that upsamples", "plain.yaml", "no nn.Upsample row"]),
        (["model=mixed.yaml"], ["model must be a model YAML that upsamples", "mixed.yaml", "DySample already; write"]),
        (["model=broken.yaml"], ["model must be a model YAML that upsamples", "broken.yaml"]),
        (["model=text.pt"], ["model must be a model that Ultralytics can build", "text.pt"]),
        (["reference=plain.yaml"], ["reference must be a Python file", "plain.yaml"]),
        (["out=speed.txt"], ["out", "must end in .json", "'speed.txt'"]),
        (["skip=model,growth,operator,train"], ["skip must leave one of model, growth, operator, train to measure"]),
        (["out=text.pt/speed.json"], ["out must be in a folder that can be made", str(Path("text.pt/speed.json"))]),
        (["out=folder.json"], ["out must be a file", "'folder.json'", "a folder"]),
        (["out=plot.json"], ["out must leave room for its plot", "'plot.png' is a folder"]),
        (["speed=1"], ["there is no key 'speed'", "--help"]),
        (["--speed"], ["arguments are key=value", "'--speed'", "--help"]),
    ],
)
def test_a_wrong_argument_gets_one_line_with_rule_value_and_way_out(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain.yaml").write_text("backbone: [[-1, 1, Conv, [64, 3, 2]]]\nhead: [[[0], 1, Detect, [80]]]\n")
    up = '[-1, 1, nn.Upsample, [None, 2, "nearest"]], [-1, 1, DySample, [2, lp, 4, False, nearest]]'
    (tmp_path / "mixed.yaml").write_text(
        f"backbone: [[-1, 1, Conv, [64, 3, 2]], {up}]\nhead: [[[0], 1, Detect, [80]]]\n"
    )
    (tmp_path / "broken.yaml").write_text("backbone: [")
    (tmp_path / "text.pt").write_text("this is no checkpoint")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "plot.png").mkdir()
    files = set(tmp_path.rglob("*"))
    assert main(["benchmark", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(word in error for word in words), error
    assert set(tmp_path.rglob("*")) == files


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there are no groups of processes")
def test_ctrl_c_reaches_the_command_alone_which_ends_the_process_of_a_task(monkeypatch):
    processes, groups, start = [], [], subprocess.Popen

    def popen(*arguments, **settings):
        processes.append(start(*arguments, **settings))
        groups.append(os.getpgid(processes[-1].pid))
        return processes[-1]

    def interrupt(*told):
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark.subprocess, "Popen", popen)
    with pytest.raises(KeyboardInterrupt):
        benchmark.run_task("format", settings(rounds=1000), interrupt, "torch")
    assert processes[0].returncode == -signal.SIGKILL
    assert groups != [os.getpgid(0)]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no groups of processes")
def test_with_a_task_ends_what_it_has_started_itself(monkeypatch):
    code = """
import json, subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False)
print(json.dumps({"told": ["exporting", 0, 1]}), flush=True)
sys.stdin.read()
"""
    start, (alive, held) = subprocess.Popen, os.pipe()

    def popen(command, **settings):
        return start([sys.executable, "-c", code], **settings, stdin=subprocess.PIPE, pass_fds=[held])

    def interrupt(*told):
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark.subprocess, "Popen", popen)
    with pytest.raises(KeyboardInterrupt):
        benchmark.run_task("format", settings(), interrupt, "torch")
    os.close(held)
    assert select.select([alive], [], [], 10)[0], "who has the other end lives on"
    os.close(alive)


def test_a_record_is_written_also_where_nobody_reads_what_is_shown(monkeypatch, tmp_path):
    def closed(record):
        raise BrokenPipeError

    monkeypatch.setattr(speed_report, "terminal", closed)
    monkeypatch.setattr(benchmark_command, "_measured", lambda *given: {"what was": "measured"})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BrokenPipeError):
        COMMAND.run(COMMAND.values(["out=speed.json"]))
    assert json.loads(Path("speed.json").read_text()) == {"what was": "measured"}


def test_an_earlier_record_is_kept_where_no_name_is_given(monkeypatch, tmp_path):
    measured = iter("ab")
    monkeypatch.setattr(speed_report, "terminal", lambda record: "")
    monkeypatch.setattr(benchmark_command, "_measured", lambda *given: {"what was": next(measured)})
    monkeypatch.setattr(benchmark_command, "_write", lambda record, out: [out.write_text(json.dumps(record))])
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        COMMAND.run(COMMAND.values([]))
    kept = {file.name: json.loads(file.read_text())["what was"] for file in Path("runs/benchmark").iterdir()}
    assert kept == {"yolov10n.json": "a", "yolov10n2.json": "b"}


def test_a_benchmark_that_ended_meanwhile_keeps_its_record(monkeypatch, tmp_path):
    earlier = tmp_path / "runs/benchmark/yolov10n.json"
    monkeypatch.setattr(speed_report, "terminal", lambda record: "")
    monkeypatch.setattr(benchmark_command, "_measured", lambda *given: earlier.write_text("the other's") and {})
    monkeypatch.chdir(tmp_path)
    assert COMMAND.run(COMMAND.values([])) == 0
    assert earlier.read_text() == "the other's"
    assert earlier.with_name("yolov10n2.json").is_file()


def test_a_model_that_may_not_be_read_is_one_line(monkeypatch, tmp_path, capsys):
    def denied(self, *arguments, **settings):
        raise PermissionError("not yours")

    monkeypatch.chdir(tmp_path)
    shutil.copy(find_stock("yolov10n.yaml"), "mine.yaml")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", denied)
        assert main(["benchmark", "model=mine.yaml"]) == 2
    assert capsys.readouterr().err == (
        "yolov10-dysample benchmark: model cannot be read, or its twin not written: not yours\n"
    )


def test_a_folder_that_may_not_be_looked_into_is_one_line(monkeypatch):
    def denied(self):
        raise PermissionError("not yours")

    monkeypatch.setattr(Path, "is_dir", denied)
    with pytest.raises(UsageError, match=r"^out must be in a folder that can be .* got 'speed\.json': not yours$"):
        benchmark_command._check_out(Path("speed.json"))


def test_a_record_names_the_gpu_that_was_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr("yolov10_dysample.study.records.gpu_name", lambda device: asked.append(str(device)))
    monkeypatch.setattr(benchmark, "measure", lambda settings, report: {})
    for device in ("cpu", "1"):
        twins = Twins("yolov10n", "yolov10n.yaml", "yolov10n-dysample.yaml", False, "v10Detect")
        benchmark_command._measured({**COMMAND.values([]), "device": device}, twins, lambda said: None)
    assert asked == ["cpu", "cuda:1"]


def test_onnx_runtime_that_would_take_the_cpu_for_a_gpu_is_no_measurement(tmp_path, monkeypatch):
    import onnxruntime

    class Session:
        def __init__(self, file, options, providers):
            assert providers[0] == ("CUDAExecutionProvider", {"device_id": 1})

        def get_providers(self):
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    with pytest.raises(RuntimeError, match="and would run on the CPU"):
        exports.open_onnx(tmp_path / "model.onnx", torch.rand(1, 3, 32, 32), settings(device="1"))


def test_a_record_that_cannot_be_written_is_told_also_where_nobody_reads_what_is_shown(monkeypatch, tmp_path, capfd):
    def closed(record):
        raise BrokenPipeError

    def full(record, out):
        raise OSError("no space left on device")

    monkeypatch.setattr(speed_report, "terminal", closed)
    monkeypatch.setattr(benchmark_command, "_measured", lambda *given: {})
    monkeypatch.setattr(benchmark_command, "_write", full)
    monkeypatch.chdir(tmp_path)
    assert main(["benchmark", "out=speed.json"]) == 2
    assert "could not be written: no space left on device" in capfd.readouterr().err


def test_without_rich_one_line_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rich", None)
    assert main(["benchmark"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert 'pip install "yolov10-dysample[benchmark]"' in error


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("commands.benchmark", ["torch", "ultralytics", "rich"]),
        (
            "study.tasks",
            ["torch.utils.flop_counter", "rich", "matplotlib.figure"],
        ),  # peaks of memory are measured there
    ],
)
def test_what_a_module_loads_is_not_more_than_it_needs(module, absent):
    code = f"import sys, yolov10_dysample.{module}; print(set({absent}) & set(sys.modules))"
    assert run(sys.executable, "-c", code, cwd=ROOT).splitlines()[-1] == "set()"


@pytest.mark.parametrize("name", ["yolov10n", "yolov10n.yaml", "yolov10n-dysample", "yolov10n-dysample.yaml"])
def test_a_stock_model_may_be_named_with_its_endings(name, tmp_path):
    twins = make_twins(name, tmp_path)
    assert twins == ("yolov10n", "yolov10n.yaml", "yolov10n-dysample.yaml", False, "v10Detect")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_to_a_model_yaml_has_the_size_of_its_own_name(tmp_path):
    shutil.copy(find_stock("yolov8.yaml"), tmp_path)
    link = tmp_path / "yolov8s.yaml"
    link.symlink_to("yolov8.yaml")
    twins = make_twins(str(link), tmp_path)
    stock, ours = (load(name, settings(stock=twins.stock, dysample=twins.dysample)).model for name in (STOCK, OURS))
    assert stock.yaml["scale"] == ours.yaml["scale"] == "s"


def test_a_stock_model_that_ultralytics_opens_as_rt_detr_has_a_twin_too(tmp_path):
    twins = make_twins("yolov8n-rtdetr.yaml", tmp_path)
    assert twins.head == "RTDETRDecoder"
    network = load(OURS, settings(stock=twins.stock, dysample=twins.dysample)).model
    assert sum(isinstance(layer, DySample) for layer in network.modules()) == 2


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model of one's own, as people have it: a YAML, its checkpoint, and the checkpoint of its DySample twin."""
    folder = tmp_path_factory.mktemp("mine")
    shutil.copy(find_stock("yolov10n.yaml"), folder / "mine.yaml")
    yolo = YOLO(folder / "mine.yaml", verbose=False)
    with torch.no_grad():
        yolo.model.model[0].conv.weight[0, 0, 0, 0] = 1 / 3  # not a number of half precision
    yolo.save(folder / "stock.pt")
    use_dysample(yolo, init="bilinear")
    nn.init.constant_(yolo.model.model[11].offset.weight, 0.25)
    yolo.save(folder / "trained.pt")
    return folder


@pytest.mark.parametrize("file", ["mine.yaml", "stock.pt", "trained.pt"])
def test_a_model_of_ones_own_gets_its_twin_and_is_left_as_it_was(models, file, tmp_path):
    before = {path: path.read_bytes() for path in models.iterdir()}
    twins = make_twins(str(models / file), tmp_path)
    assert {path: path.read_bytes() for path in models.iterdir()} == before
    assert twins.trained is (file == "trained.pt")
    stock, ours = (YOLO(path, verbose=False).model for path in (twins.stock, twins.dysample))
    assert [type(network.model[11]) for network in (stock, ours)] == [nn.Upsample, DySample]
    assert ours.model[11].i == stock.model[11].i == 11
    if file.endswith(".pt"):
        weights = ours.state_dict()
        assert all(torch.equal(value, weights[key]) for key, value in stock.state_dict().items())


@pytest.mark.parametrize("file", ["mine.yaml", "stock.pt", "trained.pt"])
def test_only_offsets_that_nobody_trained_are_spread(models, file, tmp_path):
    twins = make_twins(str(models / file), tmp_path)
    asked = settings(stock=twins.stock, dysample=twins.dysample, trained=twins.trained)
    weight = load(OURS, asked).model.model[11].offset.weight
    assert bool((weight == 0.25).all()) is twins.trained


def test_a_checkpoint_can_do_a_training_step_with_all_its_weights(models, tmp_path):
    twins = make_twins(str(models / "stock.pt"), tmp_path)
    asked = settings(stock=twins.stock, dysample=twins.dysample, trained=twins.trained, reference=PUBLISHED_FILE)
    for name in (STOCK, OURS, PUBLISHED):
        make_training_step(name, asked)()


def test_offsets_that_are_all_zero_are_not_spread_into_numbers_that_are_none():
    layer = DySample(8, init="nearest")
    with pytest.raises(
        ValueError, match="the offsets of a layer must differ to be spread, got a standard deviation of 0"
    ):
        operators.spread_offsets(layer, torch.rand(1, 8, 4, 4), 0.5)
    assert not layer.offset.weight.any()


def test_a_training_step_of_mixed_precision_computes_in_half_precision(small):
    seen = []

    def look(layer, inputs, output):
        seen.append(getattr(output, "dtype", None))

    hook = nn.modules.module.register_module_forward_hook(look)
    try:
        for amp in (False, True):
            seen.clear()
            make_training_step(OURS, small._replace(amp=amp))()
            assert (torch.bfloat16 in seen) is amp
    finally:
        hook.remove()


@pytest.fixture
def small(tmp_path):
    """Settings for a small YOLOv10 beside its DySample twin."""
    files = {}
    for name, row in ((STOCK, 'nn.Upsample, [None, 2, "nearest"]'), (OURS, "DySample, [2]")):
        files[name] = str(tmp_path / f"{name}.yaml")
        Path(files[name]).write_text(SMALL.format(row=row, head="v10Detect, [1]"))
    return settings(threads=THREADS, **files)


def test_compiled_models_are_what_ultralytics_compiles(small, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda model, **options: asked.append(options) or model)
    found = tasks.measure_format(small._replace(reference=PUBLISHED_FILE), lambda *told: None, "compile")["compile"]
    assert set(found["candidates"]) == {STOCK, OURS}
    assert all(set(candidate["ratio"]) == SPREAD for candidate in found["candidates"].values())
    attempt_compile(nn.Identity(), torch.device("cpu"), mode=True)
    ours, theirs = asked[:2], asked[2]
    assert ours == [theirs] * 2


@pytest.mark.slow
def test_growth_is_measured_at_every_size_and_number_of_images_and_reported(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = []

    def run_task(task, settings, tell, name):
        if name == "onnx":  # every export takes a second
            settings = settings._replace(grow_batch=[1])
        return TASKS[task](settings, tell, name)

    monkeypatch.setattr(benchmark, "run_task", run_task)
    asked = small._replace(grow=[32, 64], grow_batch=[1, 2], skip=["model", "operator", "train"])
    growth = benchmark.measure(asked, lambda *progress: told.append(progress[0]))["growth"]
    cells = {name: [(cell["imgsz"], cell["batch"]) for cell in cells] for name, cells in growth.items()}
    every = [(32, 1), (64, 1), (32, 2), (64, 2)]
    assert cells == {"torch": every, "onnx": every[:2], "onnx, dynamic": every[:2]}
    for cell in (cell for cells in growth.values() for cell in cells):
        assert set(cell["candidates"]) == {STOCK, OURS}
        assert [set(cell["candidates"][name]["ratio"]) for name in (STOCK, OURS)] == [SPREAD, SPREAD]
    assert {"64 px, batch 1, onnx: timing", "64 px, onnx, dynamic: timing"} <= set(told)

    record = json.loads((ROOT / "results/speed.json").read_text()) | {"growth": growth}
    header, *rows = speed_report.growth_table(record)
    assert header == ["runtime", "batch", "32 px", "64 px"]
    assert [row[1] for row in rows] == ["1", "2", "1", "1"]
    ratio = growth["onnx, dynamic"][1]["candidates"][OURS]["ratio"]["median"]
    assert f"; {ratio:.2f} [" in rows[-1][-1]
    assert aligned([header, *rows]) in speed_report.terminal(record)
    assert markdown([header, *rows]) in speed_docs.section(record)


def test_a_call_of_many_pixels_is_timed_in_fewer_rounds():
    asked = settings(rounds=30, grow=[160, 640, 1280], grow_batch=[1, 8])
    assert [cell.rounds for cell in tasks.cells_of_growth(asked)] == [30, 30, 7, 30, 5, 5]
    assert {cell.rounds for cell in tasks.cells_of_growth(asked._replace(rounds=2))} == {2}


@pytest.mark.parametrize("reason", [{"missing": "not installed: pip install onnx"}, {"failed": "out of memory"}])
def test_growth_that_was_not_measured_is_named(reason):
    record = json.loads((ROOT / "results/speed.json").read_text()) | {"growth": {"onnx": reason}}
    assert speed_report.growth_table(record)[1:] == [["ONNX Runtime", *reason.values()]]
    assert next(iter(reason.values())) in speed_report.terminal(record)


SPREAD = {"median", "q1", "q3"}
THREADS = 1  # not the default, and two workers of the tests share a machine
TINY = ("imgsz=64", "rounds=2", "sizes=10", f"threads={THREADS}", "train_imgsz=64", "train_batch=1", "memory_runs=1")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, models):
    """What a tiny run of a trained checkpoint printed, its record and its folder.

    Its tasks run in this process: that fresh ones work, the documented command shows below.
    """
    folder = tmp_path_factory.mktemp("speed")

    def run_task(task, settings, report, *arguments):
        with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as here:
            patch.chdir(here)
            return TASKS[task](settings, report, *arguments)

    more = ("formats=torch,torchscript,onnx", "skip=growth,operator", f"reference={PUBLISHED_FILE}", "out=speed.json")
    printed = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
    ):
        patch.chdir(folder)
        patch.setattr(benchmark, "run_task", run_task)
        assert main(["benchmark", f"model={models / 'trained.pt'}", *TINY, *more]) == 0
    return printed.getvalue(), json.loads((folder / "speed.json").read_text()), folder


@pytest.mark.slow
def test_a_run_records_everything(tiny):
    printed, record, _ = tiny
    assert {"command", "date", "revision", "machine", "versions", "settings", "seconds"} < set(record)
    assert {"cpu", "cores", "system"} < set(record["machine"])
    assert {"python", "torch", "ultralytics", "onnxruntime", "yolov10-dysample"} < set(record["versions"])
    assert record["settings"]["threads"] == THREADS
    words = shlex.split(record["command"])
    assert words[:2] == ["yolov10-dysample", "benchmark"]
    assert words[2].startswith("model=")
    assert COMMAND.values(shlex.split(record["command"])[2:])["rounds"] == 2

    model, train = record["model"], record["train"]
    assert {name: runtime["detail"] for name, runtime in model["runtimes"].items()} == {
        "torch": f"torch, channels_last, {THREADS} threads",
        "torchscript": f"torch, {THREADS} threads",
        "onnx": f"CPUExecutionProvider, {THREADS} threads",
    }
    assert "view size" in model["runtimes"]["torch"]["candidates"][PUBLISHED]["failed"]
    for found in (
        *(model["runtimes"]["torch"]["candidates"][name] for name in (STOCK, OURS, ADAPTED)),
        *(model["runtimes"]["onnx"]["candidates"][name] for name in (STOCK, OURS, PUBLISHED)),
        *(train["step"][name] for name in (STOCK, OURS, PUBLISHED)),
    ):
        assert set(found["ms"]) == set(found["ratio"]) == SPREAD
    files = {name: found["bytes"] for name, found in model["runtimes"]["onnx"]["candidates"].items()}
    assert files[STOCK] < files[OURS] < files["dysample, gather"]
    assert "in the same rounds: ONNX Runtime by gathers " in printed
    assert model["size"][OURS]["parameters"] - model["size"][STOCK]["parameters"] == 12_352
    assert model["size"][STOCK]["gmacs"] < model["size"][OURS]["gmacs"]
    for memory in (model["memory"], train["memory"]):
        assert all(set(found["mib"]) == set(found["ratio"]) == SPREAD for found in memory.values())


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
    for stage in ("torch: timing", "onnx: exporting", "training step: timing"):
        assert stage in printed
    assert speed_report.terminal(record) in printed
    assert (folder / "speed.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def small_shapes(monkeypatch):
    """One small map in place of the full shapes, and this process in place of fresh ones."""
    for name in ("SHAPES", "YOLO_SHAPES"):
        monkeypatch.setattr(operators, name, ((1, 32, 5, 4),))
    monkeypatch.setattr(benchmark, "run_task", lambda task, settings, report: TASKS[task](settings, report))


def test_operators_are_measured_beside_the_published_code_in_torch_and_onnxruntime(small_shapes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = []
    asked = settings(sizes=[10], reference=PUBLISHED_FILE, skip=["model", "growth", "train"])
    found = benchmark.measure(asked, lambda *progress: told.append(progress[0]))["operator"]
    assert set(found["ours_over_published"]) == {"channels_last", "contiguous"}
    assert [entry["memory_format"] for entry in found["shapes"]] == ["channels_last", "contiguous"]
    assert [entry["shape"] for entry in found["sweep"]] == [[1, 128, 10, 10]]
    for entry in (*found["shapes"], *found["sweep"], *found["onnxruntime"]):
        assert set(entry["ours_over_published"]) == SPREAD
        assert entry["largest_difference"] < 1e-3
    for entry in found["shapes"]:
        left_out = {ADAPTED} if entry["memory_format"] == "contiguous" else set()
        assert set(entry["candidates"]) == set(UPSAMPLERS) - left_out
    assert "operators, onnxruntime, 1x32x5x4: timing" in told


def test_operators_are_measured_without_the_published_code_too(small_shapes):
    told = []
    found = operators.measure_operators(settings(sizes=[10]), lambda *progress: told.append(progress))
    assert set(found) == {"shapes", "sweep"}
    for entry in (*found["shapes"], *found["sweep"]):
        assert set(entry) == {"shape", "memory_format", "candidates"}
        assert set(entry["candidates"]) == set(UPSAMPLERS) - {PUBLISHED, ADAPTED}
    assert told[-1] == ("operators, channels_last, 1x128x10x10: timing", 2, 2)


def test_operators_are_measured_and_shown_where_the_published_code_does_not_run(small_shapes, monkeypatch):
    monkeypatch.setattr(operators, "_beside_published", lambda times, outputs: {})
    found = operators.measure_operators(settings(sizes=[10], reference=PUBLISHED_FILE), Reporter())
    assert set(found) == {"shapes", "sweep"}
    record = json.loads((ROOT / "results/speed.json").read_text())
    del record["operator"]["onnxruntime"][0]["ours_over_published"]
    assert "in ONNX Runtime, against the published code: " in speed_report.terminal(record)


def test_a_revision_is_dirty_if_code_was_changed_and_not_if_records_were(tmp_path, monkeypatch):
    for name in ("pyproject.toml", "code.py", "results/speed.json", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("as committed")
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    for words in (["init", "--quiet"], ["add", "."], [*identity, "commit", "--quiet", "--message=first"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.setattr(records, "__file__", str(tmp_path / "yolov10_dysample/study/records.py"))
    for name in ("results/speed.json", "README.md"):
        (tmp_path / name).write_text("changed")
    clean = records.environment_record()["revision"]
    assert re.fullmatch("[0-9a-f]{12}", clean)
    (tmp_path / "code.py").write_text("changed")
    assert records.environment_record()["revision"] == f"{clean}-dirty"


def test_on_windows_the_peak_of_memory_is_the_systems_own(monkeypatch):
    memory = SimpleNamespace(peak_wset=3 * 2**20)
    monkeypatch.setattr("psutil.Process", lambda: SimpleNamespace(memory_info=lambda: memory))
    monkeypatch.setattr("sys.platform", "win32")
    assert model_cost.peak_memory(torch.device("cpu")) == 3


@pytest.mark.parametrize("part", PARTS)
def test_a_record_without_a_skipped_part_is_reported_too(part):
    record = json.loads((ROOT / "results/speed.json").read_text())
    del record[part]
    assert speed_report.terminal(record)
    assert speed_plot.draw(record).startswith(b"\x89PNG")


@pytest.mark.slow
def test_from_a_wheel_alone_it_ends_well_and_says_that_the_published_code_is_left_out(warm_shell, tmp_path):
    (command,) = documented("benchmark")
    printed = warm_shell(command, cwd=tmp_path)
    assert "the published code is left out" in printed
    files = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert files == {"runs/benchmark/yolov10n.json", "runs/benchmark/yolov10n.png"}
    record = json.loads((tmp_path / "runs/benchmark/yolov10n.json").read_text())
    assert record["settings"]["reference"] is None
    assert record["revision"] == "not a git checkout"
    for name, others in (("torch", {}), ("onnx", {"dysample, gather": SPREAD})):
        candidates = record["model"]["runtimes"][name]["candidates"]
        measured = {key: set(found["ratio"]) for key, found in candidates.items()}
        assert measured == {STOCK: SPREAD, OURS: SPREAD, **others}
    assert set(record["train"]["step"]) == set(record["model"]["memory"]) == {STOCK, OURS}
    assert "published" not in speed_report.terminal(record)
    assert speed_report.terminal(record) in printed


@pytest.mark.slow
def test_a_checkpoint_is_exported_elsewhere_than_beside_it_and_keeps_its_offsets(models, tiny):
    assert {path.name for path in models.iterdir()} == {"mine.yaml", "stock.pt", "trained.pt"}
    record = tiny[1]
    assert record["settings"]["offset_spread"] is None
    found = record["model"]["runtimes"]["onnx"]["candidates"]
    assert found[PUBLISHED]["bytes"] != found[OURS]["bytes"]


def test_the_docs_have_what_the_record_gives():
    record, runs = (json.loads((ROOT / f"results/{name}.json").read_text()) for name in ("speed", "bench"))
    document, readme = ((ROOT / file).read_text(encoding="utf-8") for file in ("docs/speed.md", "README.md"))
    assert speed_docs.with_section(document, record) == document, "run: python -m scripts.speed_docs"
    assert speed_docs.with_summary(readme, record, runs) == readme, "run: python -m scripts.speed_docs"
    assert (ROOT / "results/speed.png").is_file()


def test_the_docs_show_every_run_of_the_benchmark():
    record = json.loads((ROOT / "results/bench.json").read_text())
    document = (ROOT / "docs/speed.md").read_text(encoding="utf-8")
    assert speed_docs.with_runs(document, record) == document, "run: python -m scripts.speed_docs"
    last = json.loads((ROOT / "results/speed.json").read_text())
    assert list(record["runs"][-1]["ratios"]) == list(speed_docs.ratios(last))


def test_the_docs_show_the_runtimes_that_are_measured_on_request():
    record = json.loads((ROOT / "results/requested.json").read_text())
    document = (ROOT / "docs/speed.md").read_text(encoding="utf-8")
    assert speed_docs.with_requested(document, record) == document, "run: python -m scripts.speed_docs"
    measured = {name: runtime["candidates"] for name, runtime in record["model"]["runtimes"].items() if name != "torch"}
    assert tuple(measured) == ON_REQUEST
    for name, candidates in measured.items():  # what the choice of the form goes by
        own, other = candidates[OURS]["ratio"], candidates[f"{OURS}, grid_sample"]["ratio"]
        assert traced_form(name) == "gather"
        assert own["q3"] < other["q1"]


def test_the_docs_show_what_the_profilers_said_of_every_runtime():
    record = json.loads((ROOT / profile_layers.RECORD).read_text())
    document = (ROOT / profile_layers.DOCUMENT).read_text(encoding="utf-8")
    assert profile_layers.with_section(document, record) == document, "run: python -m scripts.profile_layers --docs"
    assert set(record["runtimes"]) == set(profile_layers.RUNTIMES)


def test_an_operators_time_is_that_of_all_its_calls_in_a_run_within_the_layers_and_after_the_warm_up():
    cold, warm = (
        [("/model.11/Mul", "Mul", 100.0), ("/model.14/Mul_1", "Mul", 50.0), ("/model.111/Mul", "Mul", 1e5)],
        [("/model.11/Mul", "Mul", 2.0), ("/model.14/Mul_1", "Mul", 3.0), ("/model.111/Mul", "Mul", 5.0)],
    )
    found = profile_layers.summary([cold] * profile_layers.WARMUP + [warm], rows=[11, 14])
    assert found == {"whole model": 0.01, "upsampling": 0.005, "operators": {"Mul": 0.005}}


def test_the_committed_record_is_of_a_full_default_run_with_every_runtime():
    record = json.loads((ROOT / "results/speed.json").read_text())
    defaults = COMMAND.values([])
    assert record["settings"]["threads"] == 2
    for key in ("imgsz", "batch", "device", "rounds", "sizes", "skip", "train_batch", "train_imgsz", "memory_runs"):
        assert record["settings"][key] == defaults[key], key
    assert record["settings"]["model"] == "yolov10n"
    shown = {speed_report.PRINTED.get(name, name) for name in record["model"]["runtimes"]}
    expected = {speed_report.PRINTED.get(name, name) for name in (*defaults["formats"], "openvino, f32")}
    assert shown == expected
    assert PUBLISHED in record["model"]["size"]
    operator = record["operator"]
    assert [tuple(entry["shape"]) for entry in operator["shapes"]] == list(SHAPES) * 2
    assert [tuple(entry["shape"]) for entry in operator["onnxruntime"]] == list(YOLO_SHAPES)
    assert {"missing", "failed"}.isdisjoint(key for r in record["model"]["runtimes"].values() for key in r)
