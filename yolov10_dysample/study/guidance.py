"""DySample with guidance, to be compared and for nothing else: offsets that the lateral map has a say in.

What gains over DySample elsewhere looks at the map of the backbone that the upsampled one is joined with, which has its
edges at full resolution. This is the least of that: one more convolution of the lateral map, added to the offsets. It
must start as plain DySample, and stays out of the operator unless it wins by the registered rule.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from yolov10_dysample.dysample import OFFSET_RANGE, DySample
from yolov10_dysample.map_sizes import STRIDE_IMAGE_PX
from yolov10_dysample.rows import input_channels

__all__ = ["GuidedDySample", "find_laterals", "set_guidance"]


class GuidedDySample(DySample):
    """A DySample layer that is given its map and the lateral one, ``[B, C, H, W]`` and ``[B, C', s*H, s*W]``."""

    guide: nn.Conv2d
    _lateral: Tensor | None = None

    def predict_offset(self, x: Any) -> Tensor:
        x, lateral = x if isinstance(x, list) else (x, self._lateral)
        return super().predict_offset(x) + OFFSET_RANGE * self.guide(lateral)

    def forward(self, x: Any) -> Tensor:
        x, self._lateral = x
        try:
            return super().forward(x)
        finally:
            self._lateral = None  # what has a graph cannot be copied, and the trainer copies the network


def set_guidance(network: Any) -> None:
    """Give every DySample layer the map that its own is joined with next; none of the outputs changes by that.

    Args:
        network: A model of Ultralytics, in training mode or not.

    Raises:
        ValueError: As :func:`find_laterals` does.
    """
    laterals = find_laterals(network.model)
    widths: dict[int, int] = {}
    hooks = [
        layer.register_forward_hook(lambda layer, _, output: widths.update({layer.i: output.shape[1]}))
        for layer in network.model[:-1]
    ]
    training = network.training
    with torch.no_grad():
        network.eval()(torch.zeros(1, input_channels(network.yaml), STRIDE_IMAGE_PX, STRIDE_IMAGE_PX))
    network.train(training)
    for hook in hooks:
        hook.remove()
    for i, lateral in laterals.items():
        layer = network.model[i]
        with torch.random.fork_rng([]):  # its weights are drawn, and not used
            layer.guide = nn.Conv2d(widths[lateral], 2 * layer.groups, 1, bias=False)
        nn.init.zeros_(layer.guide.weight)
        layer.__class__, layer.f = GuidedDySample, [layer.f, lateral]
        network.save = sorted({*network.save, lateral})


def find_laterals(layers: Any) -> dict[int, int]:
    """The row whose map is joined with that of a DySample row, by each of those.

    Args:
        layers (Sequential): What Ultralytics builds from the rows of a model YAML.

    Raises:
        ValueError: If what such a row gives is not joined next, with one other map.
    """
    laterals = {}
    for i, layer in enumerate(layers):
        if isinstance(layer, DySample):
            following = layers[i + 1].f
            others = [row for row in following if row not in (-1, i)] if isinstance(following, list) else []
            if len(others) != 1:
                raise ValueError(
                    f":guided needs a row after each DySample row that joins it with one other, got {following} as "
                    f"what row {i + 1} takes; name the rows that have one, such as :rows=14"
                )
            laterals[i] = others[0]
    return laterals
