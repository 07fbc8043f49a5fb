"""The models that are measured: the user's own, its twin with the other upsampling, and that with the published code.

All have the same weights, but for DySample's own, and all are made in the same steps, for the sake of peak memory. The
user's files must never be changed, nor written beside: a twin that has to be made goes to a folder the caller names.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from torch import Tensor, nn

from yolov10_dysample.convert import convert_rows
from yolov10_dysample.dysample import DySample
from yolov10_dysample.errors import one_line
from yolov10_dysample.model_files import SUFFIX, find_stock
from yolov10_dysample.rows import has_dysample_rows
from yolov10_dysample.study.operators import published_copy, spread_all_offsets
from yolov10_dysample.study.settings import ADAPTED, OFFSET_SPREAD, OURS, PUBLISHED, STOCK, Settings, predicting_format
from yolov10_dysample.study.timing import SEED
from yolov10_dysample.swap import use_dysample

__all__ = [
    "Twins",
    "as_yolo_opens",
    "exported_candidates",
    "load",
    "make_images",
    "make_training_step",
    "make_twins",
    "predicting",
    "predicting_candidates",
    "replace_dysample",
    "training_candidates",
]

BOXES_AN_IMAGE = 8


class Twins(NamedTuple):
    """A model beside its twin.

    Attributes:
        name (str): What to call the stock model.
        stock, dysample (str): A name or an absolute path that ``YOLO()`` takes.
        trained (bool): Whether DySample's weights are those of a training.
        head (str): The class of the last layer.
    """

    name: str
    stock: str
    dysample: str
    trained: bool
    head: str


def make_twins(model: str, folder: Path) -> Twins:
    """The two models that a user's model stands for.

    Args:
        model (str): The name of a stock model that upsamples, with or without its endings; a model YAML with
            ``nn.Upsample`` rows; or a checkpoint, whose upsampling is swapped for DySample, or DySample for nearest.
        folder (Path): Where a twin that does not exist is written.

    Raises:
        ValueError: If it is none of these; the message begins with "must".
    """
    file = Path(model)
    if file.suffix == ".pt":
        return _of_checkpoint(file, folder)
    if file.suffix in (".yaml", ".yml") and file.is_file():
        return _of_yaml(file, folder)
    name = model.removesuffix(".yaml").removesuffix(SUFFIX)
    stock = f"{name}.yaml"
    if find_stock(stock) is None:
        raise ValueError(
            f"must be a stock model that upsamples, a model YAML or a .pt file, got {model!r}, which is neither a file "
            f"nor a stock name; write yolov10n.yaml or yolo11s.yaml, say"
        )
    return Twins(name, stock, f"{name}{SUFFIX}.yaml", False, _head(_opened(f"{name}{SUFFIX}.yaml", model)))


def _of_yaml(file: Path, folder: Path) -> Twins:
    try:
        model = yaml.safe_load(file.read_text(encoding="utf-8"))
        converted, _ = convert_rows(model)
        if has_dysample_rows(model):
            raise ValueError("some of its rows are DySample already; write nn.Upsample in all of them")
    except (yaml.YAMLError, ValueError) as error:  # among them what is not UTF-8
        raise ValueError(f"must be a model YAML that upsamples, got {file}: {one_line(error)}") from None
    twin = folder / f"{file.stem}{SUFFIX}.yaml"  # Ultralytics takes the model's size from the beginning of its name
    twin.write_text(yaml.safe_dump(converted, sort_keys=False, allow_unicode=True), encoding="utf-8")
    # Not where a link leads to: the file's own name has the size.
    return Twins(file.stem, str(file.absolute()), str(twin.resolve()), False, _head(_opened(str(twin), str(file))))


def _of_checkpoint(file: Path, folder: Path) -> Twins:
    if not file.is_file():  # which Ultralytics would look for elsewhere, and download
        raise ValueError(f"must be a file that is there, got {str(file)!r}; write the path of your .pt file")
    yolo = _opened(str(file), str(file))
    network = yolo.model
    own = str(file.absolute())  # of a link its own name counts: it may say that the model is an RT-DETR
    if any(isinstance(layer, DySample) for layer in network.modules()):
        replace_dysample(network, lambda layer: nn.Upsample(scale_factor=layer.scale, mode="nearest"))
        return Twins(file.stem, _saved(yolo, folder / f"{file.stem}-stock.pt"), own, True, _head(yolo))
    try:
        use_dysample(yolo, init="bilinear")
    except RuntimeError as error:  # DySample is not registered
        raise ValueError(f"cannot be swapped: {one_line(error)}") from None
    except ValueError as error:
        raise ValueError(f"must be a model that upsamples, got {file}: {one_line(error)}") from None
    return Twins(file.stem, own, _saved(yolo, folder / f"{file.stem}{SUFFIX}.pt"), False, _head(yolo))


def replace_dysample(network: Any, make: Callable[[DySample], nn.Module]) -> None:
    """Replace the DySample layers of a network, in place, keeping what Ultralytics needs to know of each.

    Args:
        network: The module that has its layers as ``model``.
        make (Callable[[DySample], nn.Module]): Makes the new layer from the old.
    """
    for i, layer in enumerate(network.model):
        if isinstance(layer, DySample):
            new = make(layer).train(layer.training)
            for key in ("i", "f", "type", "np"):  # Ultralytics 8.3.0 has the last one on the class
                if key in layer.__dict__:
                    new.__dict__[key] = layer.__dict__[key]
            network.model[i] = new


def as_yolo_opens(path: str) -> Any:
    """An Ultralytics model, of the class that the `yolo` command takes for a file of that name."""
    from ultralytics import RTDETR, YOLO

    return RTDETR(path) if "rtdetr" in Path(path).stem.lower() else YOLO(path, verbose=False)


def _opened(path: str, asked: str) -> Any:
    try:
        yolo = as_yolo_opens(path)
        _head(yolo)
    except Exception as error:  # whatever Ultralytics and unpickling raise for a file that is no model
        raise ValueError(f"must be a model that Ultralytics can build, got {asked}: {one_line(error)}") from None
    return yolo


def _head(yolo: Any) -> str:
    return type(yolo.model.model[-1]).__name__


def _saved(yolo: Any, file: Path) -> str:
    # Not yolo.save(), which rounds the weights to half precision: both models are to have the same ones.
    torch.save({"model": copy.deepcopy(yolo.model), "train_args": (yolo.ckpt or {}).get("train_args", {})}, file)
    return str(file.resolve())


def predicting_candidates(settings: Settings) -> tuple[str, ...]:
    """What can be run as `yolo predict` does, in channels_last on a CPU."""
    return (STOCK, OURS, ADAPTED) if settings.reference else (STOCK, OURS)


def exported_candidates(settings: Settings) -> tuple[str, ...]:
    return (STOCK, OURS, PUBLISHED) if settings.reference else (STOCK, OURS)


def training_candidates(settings: Settings) -> tuple[str, ...]:
    """On a GPU the trainer uses channels_last, which the published code fails in."""
    both = (PUBLISHED,) if settings.device == "cpu" else (PUBLISHED, ADAPTED)
    return (STOCK, OURS, *both) if settings.reference else (STOCK, OURS)


def load(name: str, settings: Settings, training: bool = False) -> Any:
    """A candidate as an Ultralytics model."""
    torch.manual_seed(SEED)
    yolo = as_yolo_opens(settings.stock if name == STOCK else settings.dysample)
    network: Any = yolo.model
    network.train(training)
    if not settings.trained:  # of a small image, and of stock too, which has nothing to spread
        spread_all_offsets(network, torch.rand(2, 3, 128, 128), OFFSET_SPREAD)
    if name in (PUBLISHED, ADAPTED):
        replace_dysample(network, lambda layer: published_copy(layer, name, str(settings.reference)))
    return yolo


def predicting(name: str, settings: Settings) -> Any:
    """The module that `yolo predict` runs: fused, in the memory format it takes there."""
    network = load(name, settings).model.eval().fuse(verbose=False)
    return network.to(settings.torch_device, memory_format=predicting_format(settings.torch_device))


def make_images(settings: Settings) -> Tensor:
    torch.manual_seed(SEED)
    return torch.rand(settings.batch, 3, settings.imgsz, settings.imgsz)


def make_training_step(name: str, settings: Settings) -> Callable[[], None]:
    """Forward, Ultralytics' own loss, backward; channels_last on a GPU only, as the trainer has it.

    With ``settings.amp`` as the trainer does it with ``amp=True``: a scaled loss under autocast.
    """
    from ultralytics.cfg import get_cfg

    network = load(name, settings, training=True).model
    network.args = get_cfg()
    for key, parameter in network.named_parameters():  # a finished checkpoint has all of them frozen
        parameter.requires_grad_(parameter.is_floating_point() and ".dfl" not in key)
    cuda = settings.torch_device.type == "cuda"
    network.to(settings.torch_device, memory_format=torch.channels_last if cuda else torch.contiguous_format)
    torch.manual_seed(SEED)
    boxes = BOXES_AN_IMAGE * settings.train_batch
    batch = {
        "img": torch.rand(settings.train_batch, 3, settings.train_imgsz, settings.train_imgsz),
        "batch_idx": torch.arange(boxes) // BOXES_AN_IMAGE,
        "cls": torch.randint(network.model[-1].nc, (boxes, 1)).float(),
        "bboxes": torch.rand(boxes, 4) * 0.4 + 0.3,
    }
    batch = {key: value.to(settings.torch_device) for key, value in batch.items()}

    device_type = settings.torch_device.type
    scaler = torch.amp.GradScaler(device_type, enabled=settings.amp and cuda)  # bfloat16, a CPU's, needs none

    def step() -> None:
        with torch.autocast(device_type, enabled=settings.amp):
            loss, _ = network.loss(batch)
        scaler.scale(loss.sum()).backward()
        network.zero_grad(set_to_none=True)

    return step
