"""The models that are measured, ready to predict or to train: stock, ours, and ours with the published code in it.

All have the same weights, but for DySample's own, and all are made in the same steps, for the sake of peak memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from yolov10_dysample.study.live import spread_all_offsets
from yolov10_dysample.study.names import ADAPTED, OURS, PUBLISHED, STOCK
from yolov10_dysample.study.peers import published_copy
from yolov10_dysample.study.settings import OFFSET_SPREAD, Settings
from yolov10_dysample.study.timing import SEED
from yolov10_dysample.study.twins import replace_dysample

__all__ = [
    "exported_candidates",
    "load",
    "make_images",
    "make_training_step",
    "predicting",
    "predicting_candidates",
    "training_candidates",
]

BOXES_AN_IMAGE = 8


def predicting_candidates(settings: Settings) -> tuple[str, ...]:
    """What can be run in channels_last."""
    return (STOCK, OURS, ADAPTED) if settings.reference else (STOCK, OURS)


def exported_candidates(settings: Settings) -> tuple[str, ...]:
    return (STOCK, OURS, PUBLISHED) if settings.reference else (STOCK, OURS)


def training_candidates(settings: Settings) -> tuple[str, ...]:
    """On a GPU the trainer uses channels_last, which the published code fails in."""
    both = (PUBLISHED,) if settings.device == "cpu" else (PUBLISHED, ADAPTED)
    return (STOCK, OURS, *both) if settings.reference else (STOCK, OURS)


def load(name: str, settings: Settings, training: bool = False) -> Any:
    """A candidate as an Ultralytics YOLO."""
    from ultralytics import YOLO

    torch.manual_seed(SEED)
    yolo = YOLO(settings.stock if name == STOCK else settings.dysample, verbose=False)
    network: Any = yolo.model
    network.train(training)
    if not settings.trained:  # of a small image, and of stock too, which has nothing to spread
        spread_all_offsets(network, torch.rand(2, 3, 128, 128), OFFSET_SPREAD)
    if name in (PUBLISHED, ADAPTED):
        replace_dysample(network, lambda layer: published_copy(layer, name, str(settings.reference)))
    return yolo


def predicting(name: str, settings: Settings) -> Any:
    """The module that `yolo predict` runs: fused, in channels_last."""
    network = load(name, settings).model.eval().fuse(verbose=False)
    return network.to(settings.torch_device, memory_format=torch.channels_last)


def make_images(settings: Settings) -> Tensor:
    torch.manual_seed(SEED)
    return torch.rand(settings.batch, 3, settings.imgsz, settings.imgsz)


def make_training_step(name: str, settings: Settings) -> Callable[[], None]:
    """Forward, Ultralytics' own loss, backward; channels_last on a GPU only, as the trainer has it."""
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

    def step() -> None:
        loss, _ = network.loss(batch)
        loss.sum().backward()
        network.zero_grad(set_to_none=True)

    return step
