"""Exports a model to each runtime, and opens what was exported with the same threads and settings for every candidate.

A runtime is imported when it is opened, not before. It must never install one.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yolov10_dysample.study.settings import RUNTIMES, Settings

__all__ = ["OPENERS", "OPSET", "export", "open_onnx", "size_of"]

OPSET = 17

#: What a call of an exported model is, and how its runtime was set up.
Opened = tuple[Callable[[], Any], str]


def export(yolo: Any, name: str, folder: Path, settings: Settings, **options: Any) -> Path:
    """Export a model to one of the runtimes; returns the file or the folder that has it, below ``folder``.

    Args:
        yolo (YOLO): The model.
        name (str): One of :data:`~yolov10_dysample.study.settings.RUNTIMES`.
        folder (Path): Made if it is not there.
        settings (Settings): Size, number of images and device.
        **options: More for ``YOLO.export``, such as ``dynamic=True``.
    """
    folder.mkdir(exist_ok=True)
    if hasattr(yolo.model, "pt_path"):  # what a checkpoint is exported to would be written beside it
        yolo.model.pt_path = str(folder / Path(yolo.model.pt_path).name)
    if name == "onnx":
        options["opset"] = OPSET
    device = "" if RUNTIMES[name].gpu and settings.device != "cpu" else "cpu"  # nothing: the only one that is seen
    home = Path.cwd()
    os.chdir(folder)  # Ultralytics exports what has no file of its own to the current folder
    try:
        return folder / yolo.export(format=name, imgsz=settings.imgsz, batch=settings.batch, device=device, **options)
    finally:
        os.chdir(home)
        torch.set_num_threads(settings.threads)  # the exporter has set its own number


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def open_torchscript(file: Path, batch: Tensor, settings: Settings) -> Opened:
    model = torch.jit.load(str(file), map_location=settings.torch_device).eval()
    batch = batch.to(settings.torch_device)
    return lambda: model(batch), f"torch, {torch.get_num_threads()} threads"


def open_onnx(file: Path, batch: Tensor, settings: Settings) -> Opened:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    if settings.device != "cpu":
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": int(settings.device)}))  # type: ignore[arg-type]
    session = onnxruntime.InferenceSession(str(file), options, providers=providers)
    if settings.device != "cpu" and session.get_providers()[0] != "CUDAExecutionProvider":
        raise RuntimeError("ONNX Runtime finds no CUDA and cuDNN that it was built for, and would run on the CPU")
    given = {session.get_inputs()[0].name: batch.numpy()}
    return lambda: session.run(None, given), f"{session.get_providers()[0]}, {settings.threads} threads"


def open_openvino(file: Path, batch: Tensor, settings: Settings, precision: str | None = None) -> Opened:
    import openvino

    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": settings.threads}
    if precision:
        config["INFERENCE_PRECISION_HINT"] = precision
    model = openvino.Core().compile_model(str(next(file.glob("*.xml"))), "CPU", config)
    given = batch.numpy()
    used = model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return lambda: model(given), f"{used}, {model.get_property('INFERENCE_NUM_THREADS')} threads"


def open_ncnn(file: Path, batch: Tensor, settings: Settings) -> Opened:
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


class _MnnCall:
    """A call of an MNN model; holds the runtime manager too, which must live as long as what it runs."""

    def __init__(self, file: Path, batch: Tensor, threads: int) -> None:
        import MNN

        config = {"precision": "low", "backend": "CPU", "numThread": threads}  # low as Ultralytics has it
        self.manager = MNN.nn.create_runtime_manager((config,))
        self.net = MNN.nn.load_module_from_file(str(file), [], [], runtime_manager=self.manager, rearrange=True)
        self.given = MNN.expr.placeholder(list(batch.shape), MNN.expr.NCHW)
        self.given.write(batch.numpy())

    def __call__(self) -> Any:
        return self.net.onForward([self.given])[0].read()


def open_mnn(file: Path, batch: Tensor, settings: Settings) -> Opened:
    return _MnnCall(file, batch, settings.threads), f"precision low, {settings.threads} threads"


def open_litert(file: Path, batch: Tensor, settings: Settings) -> Opened:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file), num_threads=settings.threads)
    interpreter.allocate_tensors()
    place = interpreter.get_input_details()[0]["index"]
    results = [details["index"] for details in interpreter.get_output_details()]
    given = batch.numpy()

    def run() -> list[Any]:
        interpreter.set_tensor(place, given)
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in results]

    return run, f"{settings.threads} threads"


def open_executorch(file: Path, batch: Tensor, settings: Settings) -> Opened:
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(str(next(file.glob("*.pte")))).load_method("forward")
    return lambda: method.execute([batch]), "threads of its own choice"  # its Python has no setting for them


#: Every way in which a runtime's exports are run, by the name it has in the record.
OPENERS: dict[str, dict[str, Callable[[Path, Tensor, Settings], Opened]]] = {
    "torchscript": {"torchscript": open_torchscript},
    "onnx": {"onnx": open_onnx},
    "openvino": {"openvino": open_openvino, "openvino, f32": functools.partial(open_openvino, precision="f32")},
    "ncnn": {"ncnn": open_ncnn},
    "mnn": {"mnn": open_mnn},
    "litert": {"litert": open_litert},
    "executorch": {"executorch": open_executorch},
}
