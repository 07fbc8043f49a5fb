"""Gives small models with one upsampling layer, and images, to the tests of what is looked at in a model."""

from pathlib import Path

import numpy as np
import torch
from ultralytics import YOLO

SMALL = """\
nc: 1
kpt_shape: [4, 3]
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
head:
  - [-1, 1, {row}]
  - [-1, 1, Conv, [16, 3, 2]]
  - [[3, 2], 1, {head}]
"""
STOCK = 'nn.Upsample, [None, 2, "nearest"]'
HEADS = {"detect": "Detect, [1]", "segment": "Segment, [1, 4, 8]", "pose": "Pose, [1, [4, 3]]", "obb": "OBB, [1, 1]"}


def small_model(folder: Path, row: str = "DySample, [2]", task: str = "detect") -> YOLO:
    """A model whose layer 2 upsamples from a quarter of the image's size to half of it."""
    torch.manual_seed(0)
    file = folder / "small.yaml"
    file.write_text(SMALL.format(row=row, head=HEADS[task]))
    model = YOLO(file, task=task)
    model.model.kpt_shape = [4, 3]  # in Ultralytics 8.3.0 only the trainer says so
    return model


def picture(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
