"""Gives fresh DySample layers offsets of the size that trained ones have, so that they sample elsewhere as those do.

A fresh layer moves what it samples by a thousandth of a pixel: too little for a measurement of cost or of rounding.
It must never be used on weights that somebody trained.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from yolov10_dysample.dysample import DySample

__all__ = ["spread_all_offsets", "spread_offsets"]


@torch.no_grad()
def spread_offsets(layer: DySample, x: Tensor, pixels: float) -> None:
    """Scale the offset weights of a layer so that its offsets for ``x`` have a standard deviation of so many pixels.

    Args:
        layer (DySample): A layer whose offsets are not all zero, as those of a fresh ``init="nearest"`` are.
        x (Tensor[B, in_channels, H, W]): An input of the layer.
        pixels (float): In pixels of ``x``.

    Example:
        >>> layer, x = DySample(64), torch.rand(1, 64, 5, 4)
        >>> spread_offsets(layer, x, 0.5)
        >>> round(layer.predict_offset(x).std().item(), 3)
        0.5
    """
    layer.offset.weight.mul_(pixels / layer.predict_offset(x).std())


@torch.no_grad()
def spread_all_offsets(module: nn.Module, images: Tensor, pixels: float) -> None:
    """Do :func:`spread_offsets` to every DySample layer of a module, for what reaches it of the images."""

    def spread(layer: Any, inputs: tuple) -> None:
        spread_offsets(layer, inputs[0], pixels)

    hooks = [layer.register_forward_pre_hook(spread) for layer in module.modules() if isinstance(layer, DySample)]
    module(images)
    for hook in hooks:
        hook.remove()
