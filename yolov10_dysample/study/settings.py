"""What a benchmark is asked to measure, in a form that its processes can hand on. It must never hold a default."""

from __future__ import annotations

from typing import NamedTuple

import torch

__all__ = ["OFFSET_SPREAD", "Settings"]

#: Standard deviation of the offsets of fresh layers, in pixels of their input.
OFFSET_SPREAD = 0.5


class Settings(NamedTuple):
    """What is measured, and how.

    Attributes:
        stock, dysample (str): The two models: a name or a file that ``YOLO()`` takes.
        trained (bool): Whether the offsets are those of a training, and stay.
        imgsz, batch (int): Size and number of the images of a prediction.
        device (str): ``"cpu"``, or the index of a GPU.
        threads (int): Of every runtime.
        formats (list[str]): Names of :data:`~yolov10_dysample.study.runtimes.RUNTIMES`.
        rounds (int): Timed rounds; half as many for training.
        sizes (list[int]): Heights and widths of the operators' sweep.
        skip (list[str]): Some of :data:`~yolov10_dysample.study.names.PARTS`.
        train_batch, train_imgsz (int): Images of a training step, and their size.
        memory_runs (int): Fresh processes for each peak of memory.
        reference (str | None): The file of the published code; None leaves it out.
    """

    stock: str
    dysample: str
    trained: bool
    imgsz: int
    batch: int
    device: str
    threads: int
    formats: list[str]
    rounds: int
    sizes: list[int]
    skip: list[str]
    train_batch: int
    train_imgsz: int
    memory_runs: int
    reference: str | None

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.device if self.device == "cpu" else f"cuda:{self.device}")
