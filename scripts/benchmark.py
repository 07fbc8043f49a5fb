"""Measures what DySample costs: a model beside its stock baseline in every runtime, and the operator beside its peers.

All candidates of a comparison are timed in turn in one process, and each round gives one ratio, so that whatever slows
the machine down slows all of them. It must never install anything, nor leave out in silence what it could not measure.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import importlib.util
import json
import math
import os
import platform
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TextIO

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from yolov10_dysample.convert import convert_rows
from yolov10_dysample.dysample import VARIANTS, DySample
from yolov10_dysample.model_files import SUFFIX, find_stock

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tests.reference.published_dysample import DySample as Published  # noqa: E402

STOCK, OURS, PUBLISHED = "stock", "dysample", "published"
#: The published code stops in channels_last; this is what it would cost if it did not.
ADAPTED = "published, made to accept channels_last"

SEED = 0
WARMUP = 3
#: Milliseconds of calls that one figure is the mean of, and as many before it; a LONG call counts alone.
TURN, LONG = 10, 120
#: Standard deviation of the offsets, in pixels of the input: a fresh layer's are too small to sample elsewhere.
OFFSET_SPREAD = 0.5
#: Ultralytics' own heads whose loss a batch of boxes is enough for.
HEADS = ("Detect", "v10Detect")

PAPER_SHAPE = (1, 256, 120, 120)
#: Of the two DySample rows of yolov10n at 640 pixels.
YOLO_SHAPES = ((1, 256, 20, 20), (1, 128, 40, 40))
SHAPES = (*YOLO_SHAPES, (4, 256, 40, 40), PAPER_SHAPE)
SWEEP_CHANNELS = 128
FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
OPSET = 17


class Adapted(Published):
    """The published code made to accept channels_last: the one view that fails there gets what it can view."""

    def sample(self, x: Tensor, offset: Tensor) -> Tensor:
        return super().sample(x, offset.contiguous())


class Carafe(nn.Module):
    """CARAFE (Wang et al., ICCV 2019) with its published settings, in plain torch instead of its CUDA kernel.

    Reassembly is a weighted sum of table rows, as ours is: five to ten times as fast here as `unfold` and a product.
    """

    compressed, encoder_size, reassembly_size, scale = 64, 3, 5, 2

    def __init__(self, channels: int) -> None:
        super().__init__()
        kernels = (self.scale * self.reassembly_size) ** 2
        self.compress = nn.Conv2d(channels, self.compressed, 1)
        self.encode = nn.Conv2d(self.compressed, kernels, self.encoder_size, padding=self.encoder_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        size, scale = self.reassembly_size, self.scale
        kernels = F.pixel_shuffle(self.encode(self.compress(x)), scale).softmax(dim=1)
        padded = F.pad(x, [size // 2] * 4).permute(0, 2, 3, 1).contiguous()
        index = torch.arange(padded[..., 0].numel(), device=x.device).view(padded.shape[:3])
        index = index.unfold(1, size, 1).unfold(2, size, 1).flatten(3)
        index = index.repeat_interleave(scale, dim=1).repeat_interleave(scale, dim=2)
        weight = kernels.permute(0, 2, 3, 1)
        y = F.embedding_bag(
            index.flatten(0, 2), padded.flatten(0, 2), per_sample_weights=weight.flatten(0, 2), mode="sum"
        )
        return y.unflatten(0, weight.shape[:3]).permute(0, 3, 1, 2)


#: What upsamples a map of so many channels by 2.
UPSAMPLERS: dict[str, Callable[[int], nn.Module]] = {
    "nearest": lambda channels: nn.Upsample(scale_factor=2),
    "bilinear": lambda channels: nn.Upsample(scale_factor=2, mode="bilinear"),
    "deconvolution": lambda channels: nn.ConvTranspose2d(channels, channels, 3, 2, padding=1, output_padding=1),
    "pixel shuffle": lambda channels: nn.Sequential(
        nn.Conv2d(channels, 4 * channels, 3, padding=1), nn.PixelShuffle(2)
    ),
    "carafe": Carafe,
    **{name: functools.partial(DySample, **settings) for name, settings in VARIANTS.items()},  # type: ignore[arg-type]
    PUBLISHED: Published,
    ADAPTED: Adapted,
}


class Runtime(NamedTuple):
    """What a runtime needs: its export format (None: no export), modules as {import: pip}, and whether it has GPUs."""

    format: str | None
    modules: dict[str, str]
    gpu: bool = False


_ONNX = {"onnx": "onnx", "onnxslim": "onnxslim"}
RUNTIMES = {
    "eager": Runtime(None, {}, gpu=True),
    "torchscript": Runtime("torchscript", {}, gpu=True),
    "onnx": Runtime("onnx", {**_ONNX, "onnxruntime": "onnxruntime"}, gpu=True),
    "openvino": Runtime("openvino", {"openvino": "openvino"}),
    "ncnn": Runtime("ncnn", {"ncnn": "ncnn", "pnnx": "pnnx==20260526"}),
    "mnn": Runtime("mnn", {**_ONNX, "MNN": "MNN"}),
}
PARTS = ("model", "operator", "train")
PACKAGES = ("yolov10-dysample", "ultralytics", "torch", "onnx", "onnxruntime", "openvino", "ncnn", "pnnx", "MNN")


class Progress:
    """Lines about what is going on: a bar that moves on a terminal, one line a stage elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __call__(self, what: str, done: int = 1, total: int = 1) -> None:
        line = f"{time.strftime('%H:%M:%S')} {what}"
        if self.stream.isatty():
            filled = 20 * done // total
            self.stream.write(f"\r\033[K{'█' * filled}{'░' * (20 - filled)} {line}")
        if done == total:
            self.stream.write("\n" if self.stream.isatty() else f"{line}\n")
        self.stream.flush()


class Settings(NamedTuple):
    """The command line, as child processes get it."""

    model: str
    imgsz: int
    batch: int
    device: str
    threads: int
    runtimes: list[str]
    rounds: int
    sizes: list[int]
    skip: list[str]
    train_batch: int
    train_imgsz: int
    memory_runs: int

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.device if self.device == "cpu" else f"cuda:{self.device}")


def take_turns(
    runs: Mapping[str, Callable[[], Any]], rounds: int, device: torch.device, tell: Callable[[int, int], None]
) -> dict[str, list[float]]:
    """Milliseconds a call of every candidate in every round; each round runs all of them, in an order of its own."""

    def milliseconds(name: str, calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            runs[name]()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return 1000 * (time.perf_counter() - start) / calls

    order = random.Random(SEED)
    guess = {name: min(milliseconds(name, 1) for _ in range(WARMUP)) for name in runs}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for done in range(rounds):
        for name in order.sample(list(runs), len(runs)):
            calls = max(1, round(TURN / guess[name]))
            if guess[name] < LONG:  # not timed: the threads of the one before still spin for a while
                milliseconds(name, calls)
            times[name].append(milliseconds(name, calls))
        tell(done + 1, rounds)
    return times


def quartiles(values: list[float]) -> dict[str, float]:
    low, median, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {name: rounded(value) for name, value in (("median", median), ("q1", low), ("q3", high))}


def rounded(value: float) -> float:
    return float(f"{value:.4g}")


def compared(values: dict[str, list[float]], unit: str, base: str) -> dict[str, dict[str, Any]]:
    """Quartiles of every candidate's values, and of its round-by-round ratios to the base."""
    return {
        name: {unit: quartiles(own), **({"ratio": ratio(own, values[base])} if base in values else {})}
        for name, own in values.items()
    }


def ratio(values: list[float], base: list[float]) -> dict[str, float]:
    return quartiles([value / other for value, other in zip(values, base, strict=True)])


def whatever_runs(
    candidates: Iterable[str], prepare: Callable[[str], tuple[Callable[[], Any], dict[str, Any]]]
) -> tuple[dict[str, Callable[[], Any]], dict[str, dict[str, Any]]]:
    """What each candidate runs and what is known of it; for one that cannot be run, why."""
    runs, facts = {}, {}
    for name in candidates:
        try:
            run, facts[name] = prepare(name)
            run()
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            facts[name] = {"failed": f"{type(error).__name__}: {lines[0]}"}
        else:
            runs[name] = run
    return runs, facts


def merged(facts: dict[str, dict[str, Any]], figures: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: {**fact, **figures.get(name, {})} for name, fact in facts.items()}


@torch.no_grad()
def count(module: nn.Module, *inputs: Tensor) -> dict[str, float]:
    """Parameters, and multiply-adds (in billions) for these inputs.

    Counted are convolutions and linear layers, 4 an output number for bilinear sampling (DySample's or fixed), and 25
    for CARAFE's reassembly. Not counted, in any candidate: attention's matrix products, norms, activations, and the
    arithmetic of the sampling positions.
    """
    found = {"layers": 0, "sampling": 0}

    def add(layer: nn.Module, given: tuple, output: Any) -> None:
        match layer:
            case nn.ConvTranspose2d():
                found["layers"] += given[0].numel() // layer.in_channels * layer.weight.numel()
            case nn.Conv2d():
                found["layers"] += output.numel() // layer.out_channels * layer.weight.numel()
            case nn.Linear():
                found["layers"] += output.numel() * layer.in_features
            case Carafe():
                found["layers"] += output.numel() * layer.reassembly_size**2
            case DySample() | Published() | nn.Upsample(mode="bilinear"):
                found["sampling"] += output.numel() * 4

    hooks = [layer.register_forward_hook(add) for layer in module.modules()]
    module(*inputs)
    for hook in hooks:
        hook.remove()
    return {
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "gmacs": sum(found.values()) / 1e9,
        "gmacs_sampling": found["sampling"] / 1e9,
    }


@torch.no_grad()
def spread_offsets(module: nn.Module, images: Tensor) -> None:
    """Scale the weights of DySample layers so that their offsets have a standard deviation of OFFSET_SPREAD pixels."""

    def spread(layer: Any, given: tuple) -> None:
        features = F.pixel_shuffle(given[0], layer.scale) if layer.style == "pl" else given[0]
        layer.offset.weight.mul_(4 * OFFSET_SPREAD / layer.offset(features).std())

    hooks = [layer.register_forward_pre_hook(spread) for layer in module.modules() if isinstance(layer, DySample)]
    module(images)
    for hook in hooks:
        hook.remove()


def published_copy(layer: DySample, kind: type[Published]) -> nn.Module:
    """The published layer with the weights of ours."""
    copy = kind(layer.in_channels, layer.scale, layer.style, layer.groups, layer.dyscope)
    copy.load_state_dict(layer.state_dict(), strict=False)  # ours has no init_pos
    return copy


def load(name: str, settings: Settings, training: bool = False) -> Any:
    """A candidate as an Ultralytics YOLO; all of them have the same weights, but for DySample's own."""
    from ultralytics import YOLO

    torch.manual_seed(SEED)
    yolo = YOLO(f"{settings.model}{'' if name == STOCK else SUFFIX}.yaml", verbose=False)
    model: Any = yolo.model
    model.train(training)
    spread_offsets(model, torch.rand(2, 3, 128, 128))  # small, and done to stock too, for the sake of peak memory
    if name in (PUBLISHED, ADAPTED):
        for i, layer in enumerate(model.model):
            if isinstance(layer, DySample):
                copy = published_copy(layer, Published if name == PUBLISHED else Adapted)
                copy.__dict__.update({key: layer.__dict__[key] for key in ("i", "f", "type", "np")})
                model.model[i] = copy.train(training)
    return yolo


def predicting(name: str, settings: Settings) -> Any:
    """The module that `yolo predict` runs: fused, in channels_last."""
    model = load(name, settings).model.eval().fuse(verbose=False)
    return model.to(settings.torch_device, memory_format=torch.channels_last)


def images(settings: Settings) -> Tensor:
    torch.manual_seed(SEED)
    return torch.rand(settings.batch, 3, settings.imgsz, settings.imgsz)


def training_step(name: str, settings: Settings) -> Callable[[], None]:
    """Forward, Ultralytics' own loss, backward; channels_last on a GPU only, as the trainer has it."""
    from ultralytics.cfg import get_cfg

    model = load(name, settings, training=True).model
    model.args = get_cfg()
    cuda = settings.torch_device.type == "cuda"
    model.to(settings.torch_device, memory_format=torch.channels_last if cuda else torch.contiguous_format)
    torch.manual_seed(SEED)
    boxes = 8 * settings.train_batch
    batch = {
        "img": torch.rand(settings.train_batch, 3, settings.train_imgsz, settings.train_imgsz),
        "batch_idx": torch.arange(boxes) // 8,
        "cls": torch.randint(80, (boxes, 1)).float(),
        "bboxes": torch.rand(boxes, 4) * 0.4 + 0.3,
    }
    batch = {key: value.to(settings.torch_device) for key, value in batch.items()}

    def step() -> None:
        loss, _ = model.loss(batch)
        loss.sum().backward()
        model.zero_grad(set_to_none=True)

    return step


def training_candidates(settings: Settings) -> tuple[str, ...]:
    return (STOCK, OURS, PUBLISHED) if settings.device == "cpu" else (STOCK, OURS, PUBLISHED, ADAPTED)


def export(name: str, runtime: str, settings: Settings) -> Path:
    """The exported file or folder, in a folder of the candidate's own below the current one."""
    folder, home = Path.cwd() / name.split(",")[0], Path.cwd()
    folder.mkdir(exist_ok=True)
    options = {"opset": OPSET} if runtime == "onnx" else {}
    os.chdir(folder)
    try:
        file = load(name, settings).export(
            format=RUNTIMES[runtime].format,
            imgsz=settings.imgsz,
            batch=settings.batch,
            device=settings.device if RUNTIMES[runtime].gpu else "cpu",
            **options,
        )
    finally:
        os.chdir(home)
        torch.set_num_threads(settings.threads)  # the exporter has set its own number
    return folder / file


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def open_torchscript(file: Path, batch: Tensor, settings: Settings) -> tuple[Callable[[], Any], str]:
    model = torch.jit.load(str(file), map_location=settings.torch_device).eval()
    batch = batch.to(settings.torch_device)
    return lambda: model(batch), f"torch, {torch.get_num_threads()} threads"


def open_onnx(file: Path, batch: Tensor, settings: Settings) -> tuple[Callable[[], Any], str]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    if settings.device != "cpu":
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": int(settings.device)}))  # type: ignore[arg-type]
    session = onnxruntime.InferenceSession(str(file), options, providers=providers)
    given = {session.get_inputs()[0].name: batch.numpy()}
    return lambda: session.run(None, given), f"{session.get_providers()[0]}, {settings.threads} threads"


def open_openvino(
    file: Path, batch: Tensor, settings: Settings, precision: str | None = None
) -> tuple[Callable[[], Any], str]:
    import openvino

    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": settings.threads}
    if precision:
        config["INFERENCE_PRECISION_HINT"] = precision
    model = openvino.Core().compile_model(str(next(file.glob("*.xml"))), "CPU", config)
    given = batch.numpy()
    used = model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return lambda: model(given), f"{used}, {model.get_property('INFERENCE_NUM_THREADS')} threads"


def open_ncnn(file: Path, batch: Tensor, settings: Settings) -> tuple[Callable[[], Any], str]:
    import ncnn
    import numpy

    net = ncnn.Net()
    net.opt.num_threads = settings.threads
    net.load_param(str(file / "model.ncnn.param"))
    net.load_model(str(file / "model.ncnn.bin"))
    given = batch.numpy()

    def run() -> None:
        for image in given:  # as Ultralytics does: ncnn has no batch
            extractor = net.create_extractor()
            extractor.input(net.input_names()[0], ncnn.Mat(image))
            for name in net.output_names():
                numpy.array(extractor.extract(name)[1])

    return run, f"{net.opt.num_threads} threads"


def open_mnn(file: Path, batch: Tensor, settings: Settings) -> tuple[Callable[[], Any], str]:
    import MNN

    config = {"precision": "low", "backend": "CPU", "numThread": settings.threads}  # low as Ultralytics has it
    manager = MNN.nn.create_runtime_manager((config,))
    net = MNN.nn.load_module_from_file(str(file), [], [], runtime_manager=manager, rearrange=True)
    given = MNN.expr.placeholder(list(batch.shape), MNN.expr.NCHW)
    given.write(batch.numpy())
    # The manager must live as long as what it runs.
    return lambda _alive=manager: net.onForward([given])[0].read(), f"precision low, {settings.threads} threads"


#: Every way in which a runtime's exports are run.
OPENERS: dict[str, dict[str, Callable[..., tuple[Callable[[], Any], str]]]] = {
    "torchscript": {"torchscript": open_torchscript},
    "onnx": {"onnx": open_onnx},
    "openvino": {"openvino": open_openvino, "openvino, f32": functools.partial(open_openvino, precision="f32")},
    "ncnn": {"ncnn": open_ncnn},
    "mnn": {"mnn": open_mnn},
}


def missing(runtime: str, device: str) -> str | None:
    """Why a runtime cannot be measured here, or None."""
    absent = [pip for name, pip in RUNTIMES[runtime].modules.items() if importlib.util.find_spec(name) is None]
    if absent:
        return f"not installed: pip install {' '.join(absent)}"
    if device != "cpu" and not RUNTIMES[runtime].gpu:
        return "runs on the CPU only: use --device cpu"
    return None


@torch.inference_mode()
def measure_eager(settings: Settings, progress: Progress) -> dict[str, Any]:
    batch = images(settings).to(settings.torch_device, memory_format=torch.channels_last)

    def prepare(name: str) -> tuple[Callable[[], Any], dict[str, Any]]:
        model = predicting(name, settings)
        return lambda: model(batch), {}

    runs, facts = whatever_runs((STOCK, OURS, PUBLISHED, ADAPTED), prepare)
    tell = functools.partial(progress, "eager, channels_last: timing")
    figures = compared(take_turns(runs, settings.rounds, settings.torch_device, tell), "ms", STOCK)
    detail = f"torch, channels_last, {torch.get_num_threads()} threads"
    return {"eager": {"detail": detail, "candidates": merged(facts, figures)}}


def measure_exports(
    settings: Settings, progress: Progress, runtime: str, candidates: tuple[str, ...] = (STOCK, OURS, PUBLISHED)
) -> dict[str, Any]:
    files: dict[str, Path | Exception] = {}
    for i, name in enumerate(candidates):
        progress(f"{runtime}: exporting", i, len(candidates))
        try:
            files[name] = export(name, runtime, settings)
        except Exception as error:
            files[name] = error
    progress(f"{runtime}: exporting", len(candidates), len(candidates))
    return {
        label: time_exports(files, opener, settings, functools.partial(progress, f"{label}: timing"))
        for label, opener in OPENERS[runtime].items()
    }


@torch.inference_mode()
def time_exports(
    files: dict[str, Path | Exception], opener: Callable, settings: Settings, tell: Callable[[int, int], None]
) -> dict[str, Any]:
    batch = images(settings)

    def prepare(name: str) -> tuple[Callable[[], Any], dict[str, Any]]:
        file = files[name]
        if isinstance(file, Exception):
            raise file
        run, detail = opener(file, batch, settings)
        return run, {"bytes": size_of(file), "detail": detail}

    runs, facts = whatever_runs(files, prepare)
    times = take_turns(runs, settings.rounds, settings.torch_device, tell)
    details = {fact.pop("detail") for fact in facts.values() if "detail" in fact}
    return {"detail": "; ".join(sorted(details)), "candidates": merged(facts, compared(times, "ms", STOCK))}


def measure_size(settings: Settings, progress: Progress) -> dict[str, Any]:
    """Parameters and multiply-adds an image of the model as it predicts."""
    batch = images(settings)[:1].to(settings.torch_device)
    record = {}
    for name in (STOCK, OURS, PUBLISHED):
        model = predicting(name, settings).to(memory_format=torch.contiguous_format)
        record[name] = count(model, batch)
    progress("parameters and multiply-adds: counted")
    return record


def measure_memory(settings: Settings, progress: Progress, name: str, training: bool) -> float:
    """Peak memory of this process, in MiB: of everything on a CPU, of tensors on a GPU."""
    if training:
        run: Callable[[], Any] = training_step(name, settings)
    else:
        model, batch = predicting(name, settings), images(settings)
        batch = batch.to(settings.torch_device, memory_format=torch.channels_last)
        run = torch.inference_mode()(lambda: model(batch))
    for _ in range(WARMUP):
        run()
    if settings.device != "cpu":
        return torch.cuda.max_memory_allocated(settings.torch_device) / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def measure_training(settings: Settings, progress: Progress) -> dict[str, Any]:
    runs, facts = whatever_runs(training_candidates(settings), lambda name: (training_step(name, settings), {}))
    tell = functools.partial(progress, "training step: timing")
    times = take_turns(runs, max(2, settings.rounds // 2), settings.torch_device, tell)
    return merged(facts, compared(times, "ms", STOCK))


def upsamplers(channels: int, batch: Tensor) -> dict[str, nn.Module]:
    """Every upsampler, ready to predict; the published code with the weights of ours."""
    torch.manual_seed(SEED)
    modules = {name: make(channels).to(batch.device).eval() for name, make in UPSAMPLERS.items()}
    for module in modules.values():
        if isinstance(module, DySample):
            spread_offsets(module, batch[:1])
    for name in (PUBLISHED, ADAPTED):
        modules[name].load_state_dict(modules["dysample"].state_dict(), strict=False)  # ours has no init_pos
    return modules


@torch.inference_mode()
def time_upsamplers(
    shape: tuple[int, ...], memory_format: str, settings: Settings, progress: Progress
) -> dict[str, Any]:
    torch.manual_seed(SEED)
    layout, device = FORMATS[memory_format], settings.torch_device
    batch = torch.randn(shape).to(device)
    modules = upsamplers(shape[1], batch)
    counts = {name: count(module, batch) for name, module in modules.items()}
    modules = {name: module.to(memory_format=layout) for name, module in modules.items()}
    batch = batch.contiguous(memory_format=layout)
    runs, facts = whatever_runs(modules, lambda name: (lambda: modules[name](batch), counts[name]))
    peer = PUBLISHED if PUBLISHED in runs else ADAPTED
    if memory_format == "contiguous":
        del runs[ADAPTED], facts[ADAPTED]  # the same as published
    difference = float((modules["dysample"](batch) - modules[peer](batch)).abs().max())
    tell = functools.partial(progress, f"operators, {memory_format}, {'x'.join(map(str, shape))}: timing")
    times = take_turns(runs, settings.rounds, device, tell)
    return {
        "shape": list(shape),
        "memory_format": memory_format,
        "ours_over_published": ratio(times["dysample"], times[peer]),
        "largest_difference": rounded(difference),
        "candidates": merged(facts, compared(times, "ms", "nearest")),
    }


def measure_operators(settings: Settings, progress: Progress) -> dict[str, Any]:
    shapes = [time_upsamplers(shape, layout, settings, progress) for layout in FORMATS for shape in SHAPES]
    return {
        "shapes": shapes,
        "ours_over_published": {
            layout: rounded(
                statistics.geometric_mean(
                    entry["ours_over_published"]["median"] for entry in shapes if entry["memory_format"] == layout
                )
            )
            for layout in FORMATS
        },
        "sweep": [
            time_upsamplers((1, SWEEP_CHANNELS, size, size), "channels_last", settings, progress)
            for size in settings.sizes
        ],
    }


def measure_onnx_operators(settings: Settings, progress: Progress) -> list[dict[str, Any]]:
    """Single operators in onnxruntime, at the shapes of yolov10n."""
    return [time_onnx_operators(shape, settings, progress) for shape in YOLO_SHAPES]


def time_onnx_operators(shape: tuple[int, ...], settings: Settings, progress: Progress) -> dict[str, Any]:
    torch.manual_seed(SEED)
    batch = torch.randn(shape)
    modules = upsamplers(shape[1], batch)
    outputs: dict[str, Tensor] = {}

    def prepare(name: str) -> tuple[Callable[[], Any], dict[str, Any]]:
        file = Path(f"{name}.onnx")
        torch.onnx.export(modules[name], (batch,), str(file), opset_version=OPSET, dynamo=False)
        run, detail = open_onnx(file, batch, settings._replace(device="cpu"))
        outputs[name] = torch.from_numpy(run()[0])
        return run, {"detail": detail}

    runs, facts = whatever_runs(("nearest", "dysample", PUBLISHED), prepare)
    tell = functools.partial(progress, f"operators, onnxruntime, {'x'.join(map(str, shape))}: timing")
    times = take_turns(runs, settings.rounds, torch.device("cpu"), tell)
    return {
        "shape": list(shape),
        "ours_over_published": ratio(times["dysample"], times[PUBLISHED]),
        "largest_difference": rounded(float((outputs["dysample"] - outputs[PUBLISHED]).abs().max())),
        "candidates": merged(facts, compared(times, "ms", "nearest")),
    }


def child(task: str, settings: Settings, log: Path, report: Path) -> None:
    """Do one task in this process; all it prints goes to a file, but for the progress."""
    progress = Progress(os.fdopen(os.dup(2), "w"))
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import ultralytics  # noqa: F401  it sets torch's threads when it is imported

    torch.set_num_threads(settings.threads)
    kind, _, argument = task.partition(":")
    match kind:
        case "runtime" if argument == "eager":
            result: Any = measure_eager(settings, progress)
        case "runtime":
            result = measure_exports(settings, progress, argument)
        case "runtime without published":
            result = measure_exports(settings, progress, argument, (STOCK, OURS))
        case "memory" | "training memory":
            result = measure_memory(settings, progress, argument, kind == "training memory")
        case _:
            measure = {
                "size": measure_size,
                "training": measure_training,
                "operators": measure_operators,
                "onnx operators": measure_onnx_operators,
            }[kind]
            result = measure(settings, progress)
    report.write_text(json.dumps(result))


def run_child(task: str, settings: Settings) -> Any:
    """What a task in a fresh process gives, or {"failed": why}."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        log, report = Path(folder) / "log.txt", Path(folder) / "report.json"
        threads = {name: str(settings.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        given = json.dumps(settings._asdict())
        command = [sys.executable, str(Path(__file__).resolve()), "--child", task, given, str(log), str(report)]
        environment = {**os.environ, **threads, "YOLO_AUTOINSTALL": "false", "YOLO_CONFIG_DIR": folder}
        code = subprocess.run(command, cwd=folder, env=environment).returncode
        if code == 0:
            return json.loads(report.read_text())
        lines = log.read_text(errors="replace").strip().splitlines() if log.is_file() else []
        return {"failed": f"the process ended with {code}: {lines[-1] if lines else 'it printed nothing'}"}


def memory(settings: Settings, candidates: tuple[str, ...], kind: str, progress: Progress) -> dict[str, Any]:
    """Peak memory of fresh processes, in turn."""
    peaks: dict[str, list[float]] = {name: [] for name in candidates}
    failed = {}
    for i in range(settings.memory_runs):
        for name in candidates:
            peak = run_child(f"{kind}:{name}", settings) if name not in failed else None
            if isinstance(peak, dict):
                failed[name] = peak
            elif peak is not None:
                peaks[name].append(peak)
        progress(f"{kind}: fresh processes", i + 1, settings.memory_runs)
    figures = compared({name: peaks[name] for name in candidates if name not in failed}, "mib", STOCK)
    return merged({name: failed.get(name, {}) for name in candidates}, figures)


def measure(settings: Settings, progress: Progress) -> dict[str, Any]:
    """Everything that is not skipped."""
    record: dict[str, Any] = {}
    if "model" not in settings.skip:
        runtimes: dict[str, Any] = {}
        for runtime in settings.runtimes:
            reason = missing(runtime, settings.device)
            if reason:
                progress(f"{runtime}: {reason}")
                runtimes[runtime] = {"missing": reason}
                continue
            result = run_child(f"runtime:{runtime}", settings)
            if "failed" in result and runtime != "eager":
                # A runtime that crashes on the published code must not hide what it does with ours.
                crash, result = result, run_child(f"runtime without published:{runtime}", settings)
                for measured in () if "failed" in result else result.values():
                    measured["candidates"][PUBLISHED] = crash
            runtimes.update({runtime: result} if "failed" in result else result)
        predictors = (STOCK, OURS, ADAPTED)
        record["model"] = {
            "size": run_child("size", settings),
            "runtimes": runtimes,
            "memory": memory(settings, predictors, "memory", progress),
        }
    if "train" not in settings.skip:
        candidates = training_candidates(settings)
        record["train"] = {
            "step": run_child("training", settings),
            "memory": memory(settings, candidates, "training memory", progress),
        }
    if "operator" not in settings.skip:
        reason = missing("onnx", "cpu")
        record["operator"] = {
            **run_child("operators", settings),
            "onnxruntime": {"missing": reason} if reason else run_child("onnx operators", settings),
        }
    return record


def surroundings() -> dict[str, Any]:
    """Where and with what this was measured."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    revision = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "revision": revision or "not a git checkout",
        "machine": {
            "cpu": cpu_name(),
            "cores": os.cpu_count(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "system": f"{platform.system()} {platform.machine()}",
            "load_at_start": rounded(os.getloadavg()[0]) if hasattr(os, "getloadavg") else None,
        },
        "versions": {"python": platform.python_version(), **versions},
    }


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


class Parser(argparse.ArgumentParser):
    """One line an error, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def whole(least: int, multiple: int = 1, most: float = math.inf) -> Callable[[str], int]:
    """A whole number within limits, as an argparse type."""

    def parse(text: str) -> int:
        number = int(text) if text.lstrip("-").isdecimal() else least - 1
        if not least <= number <= most or number % multiple:
            rule = f"a multiple of {multiple}" if multiple > 1 else "a whole number"
            limit = f"{least} to {most}" if most < math.inf else f"at least {least}"
            near = max(least, min(round(number / multiple) * multiple, most))
            raise argparse.ArgumentTypeError(f"must be {rule}, {limit}, got {text!r}; {near:.0f} would do")
        return number

    return parse


def several(parse: Callable[[str], Any]) -> Callable[[str], list]:
    """Values separated by commas, as an argparse type."""
    return lambda text: list(dict.fromkeys(parse(part.strip()) for part in text.split(",")))


def one_of(choices: Iterable[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"must be some of {','.join(choices)}, got {text!r}")
        return text

    return parse


def stock_model(text: str) -> str:
    """The name of a stock detection model that upsamples."""
    name = text.removesuffix(".yaml").removesuffix(SUFFIX)
    rule = f"must be the name of a stock detection model that upsamples, got {text!r}; write yolov10n or yolo11s, say"
    file = find_stock(f"{name}.yaml")
    if file is None:
        raise argparse.ArgumentTypeError(rule)
    model = yaml.safe_load(file.read_text())
    try:
        convert_rows(model)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{rule} ({error})") from None
    if model["head"][-1][2] not in HEADS:
        raise argparse.ArgumentTypeError(rule)
    return name


def device(text: str) -> str:
    gpus = torch.cuda.device_count()
    if text != "cpu" and not (text.isdecimal() and int(text) < gpus):
        raise argparse.ArgumentTypeError(f"must be cpu or the index of one of this machine's {gpus} GPUs, got {text!r}")
    return text


def record_file(text: str) -> Path:
    if not text.endswith(".json"):
        raise argparse.ArgumentTypeError(f"must end in .json, got {text!r}; the plot gets the same name with .png")
    return Path(text)


def parser() -> Parser:
    cores = os.cpu_count() or 1
    made = Parser(
        description="What DySample costs: a model beside its stock baseline in every runtime, and the operator beside "
        "its peers. About ten minutes on two cores; --skip and --rounds make it shorter.",
    )
    made.add_argument("--model", type=stock_model, default="yolov10n", help="stock name (default: yolov10n)")
    made.add_argument("--imgsz", type=whole(32, 32), default=640, help="image size (default: 640)")
    made.add_argument("--batch", type=whole(1), default=1, help="images at a time (default: 1)")
    made.add_argument("--device", type=device, default="cpu", help="cpu, or the index of a GPU (default: cpu)")
    made.add_argument(
        "--threads", type=whole(1, most=cores), default=min(2, cores), help="of every runtime (default: 2)"
    )
    made.add_argument(
        "--runtimes", type=several(one_of(RUNTIMES)), default=list(RUNTIMES), help=f"(default: {','.join(RUNTIMES)})"
    )
    made.add_argument("--rounds", type=whole(2), default=30, help="timed rounds; half for training (default: 30)")
    made.add_argument(
        "--sizes",
        type=several(whole(2)),
        default=[10, 20, 40, 80, 160],
        help="heights and widths of the operators' sweep (default: 10,20,40,80,160)",
    )
    made.add_argument("--skip", type=several(one_of(PARTS)), default=[], help=f"some of {','.join(PARTS)}")
    made.add_argument("--train-batch", type=whole(1), default=4, help="images a training step (default: 4)")
    made.add_argument("--train-imgsz", type=whole(32, 32), default=320, help="their size (default: 320)")
    made.add_argument("--memory-runs", type=whole(1), default=3, help="processes a peak of memory (default: 3)")
    made.add_argument(
        "--out", type=record_file, default=Path("results/speed.json"), help="record; a plot is drawn beside it"
    )
    return made


def main(arguments: list[str]) -> None:
    options = vars(parser().parse_args(arguments))
    out = options.pop("out")
    settings = Settings(**options)
    progress = Progress(sys.stderr)
    progress(f"{settings.model}{SUFFIX} and {settings.model}, {settings.device}, {settings.threads} threads")
    start = time.monotonic()
    record = {
        "command": shlex.join(["python", "scripts/benchmark.py", *arguments]),
        **surroundings(),
        "settings": {**settings._asdict(), "seed": SEED, "warmup": WARMUP, "offset_spread": OFFSET_SPREAD},
        **measure(settings, progress),
    }
    record["seconds"] = round(time.monotonic() - start)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    subprocess.run([sys.executable, str(ROOT / "scripts/speed_report.py"), str(out)], check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        task, given, log, report = sys.argv[2:]
        child(task, Settings(**json.loads(given)), Path(log), Path(report))
    else:
        main(sys.argv[1:])
