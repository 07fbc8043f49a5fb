"""Why a model with DySample layers cannot run, when the map of one of them does not fit the map it is joined with.

It is asked only after a model has failed, so a model that runs pays nothing and is never accused. It knows torch and
what Ultralytics' parser leaves on layers (``i``, ``f``), but never imports Ultralytics.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from yolov10_dysample.dysample import MAX_SCALE, DySample
from yolov10_dysample.rows import file_of, input_channels

__all__ = ["STRIDE_IMAGE_PX", "BuiltModel", "explain_size_mismatch"]

Size = tuple[int, int]

#: Height and width, in pixels, of the image that Ultralytics runs a new model on to find its strides.
STRIDE_IMAGE_PX = 256


class BuiltModel(Protocol):
    """What Ultralytics makes of a model YAML: the layers, and the parsed YAML itself."""

    model: nn.Sequential
    yaml: dict[str, Any]

    def __call__(self, x: Tensor) -> object: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...


def explain_size_mismatch(model: BuiltModel) -> str | None:
    """The DySample row whose map does not fit, the file, and the two sizes; None if that is not why the model fails.

    The model is run once more, as Ultralytics does to find its strides, and its layers say themselves how large their
    maps are. Only a ``Concat`` is looked at: other layers that read several maps, such as heads, may differ in size.
    """
    sizes: dict[int, Size] = {}
    entered: list[nn.Module] = []

    def note_layer(layer: nn.Module, _: object) -> None:
        entered.append(layer)

    def note_size(layer: Any, _: object, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() == 4:
            sizes[layer.i] = (output.shape[2], output.shape[3])

    hooks = [layer.register_forward_pre_hook(note_layer) for layer in model.model]
    hooks += [layer.register_forward_hook(note_size) for layer in model.model]
    try:
        model(torch.zeros(1, input_channels(model.yaml), STRIDE_IMAGE_PX, STRIDE_IMAGE_PX))
    except Exception:  # known already: this run is to find out where
        return _explain_join(model, entered[-1], sizes) if entered else None
    finally:
        for hook in hooks:
            hook.remove()
    return None


def _explain_join(model: BuiltModel, join: Any, sizes: dict[int, Size]) -> str | None:
    if type(join).__name__ != "Concat" or getattr(join, "d", 1) != 1:
        return None
    upsamplers = {source % join.i: _upsampler_behind(model.model, source % join.i) for source in join.f}
    if any(source not in sizes for source in upsamplers):
        return None
    other = next((source for source, upsampler in upsamplers.items() if upsampler is None), min(upsamplers))
    for source, upsampler in upsamplers.items():
        if upsampler is not None and sizes[source] != sizes[other]:
            fitting = _fitting_scale(upsampler.scale, sizes[source], sizes[other])
            return (
                f"DySample, row {upsampler.i} of {file_of(model.yaml)}: with scale {upsampler.scale} its map does not "
                f"fit in row {join.i}, which joins {_written(sizes[source])} of row {source} and "
                f"{_written(sizes[other])} of row {other} (for an image of {STRIDE_IMAGE_PX} px). "
                + (f"Scale {fitting} would fit" if fitting else f"Change the scale, or what row {join.i} joins")
            )
    return None


def _written(size: Size) -> str:
    return f"the {size[0]} x {size[1]} map"


def _upsampler_behind(layers: nn.Sequential, index: int) -> Any:
    """The DySample layer that a map comes from, through layers that read one map each; None if there is none."""
    layer: Any = layers[index]
    while not isinstance(layer, DySample):
        if not isinstance(layer.f, int) or layer.i == 0:
            return None
        layer = layers[layer.f % layer.i]
    return layer


def _fitting_scale(scale: int, size: Size, wanted: Size) -> int | None:
    """The scale that would make ``wanted`` out of what ``scale`` made ``size`` of, if there is one."""
    return next(
        (
            candidate
            for candidate in range(2, MAX_SCALE + 1)
            if all(now * candidate == side * scale for now, side in zip(size, wanted, strict=True))
        ),
        None,
    )
