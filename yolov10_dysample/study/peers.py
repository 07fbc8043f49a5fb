"""The operators that DySample is compared with: what else upsamples a map by 2, and the published code from its file.

The published code is no part of this package: it is loaded from a file that the caller names, or left out.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolov10_dysample.dysample import VARIANTS, DySample
from yolov10_dysample.study.live import spread_all_offsets
from yolov10_dysample.study.names import ADAPTED, OURS, PUBLISHED
from yolov10_dysample.study.timing import SEED

__all__ = ["UPSAMPLERS", "Carafe", "load_published", "made_to_run", "make_upsamplers", "published_copy"]


class Carafe(nn.Module):
    """CARAFE (Wang et al., ICCV 2019) with its published settings, in plain torch instead of its CUDA kernel.

    Reassembly is a weighted sum of table rows, as ours is: five to ten times as fast here as `unfold` and a product.

    Shape:
        ``[B, channels, H, W]`` to ``[B, channels, 2 * H, 2 * W]``.

    Example:
        >>> Carafe(32)(torch.rand(2, 32, 5, 4)).shape
        torch.Size([2, 32, 10, 8])
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
}


def make_upsamplers(channels: int, batch: Tensor, pixels: float, reference: str | None) -> dict[str, nn.Module]:
    """Every upsampler by its name, ready to predict.

    Args:
        channels (int): Channels of the maps.
        batch (Tensor[B, channels, H, W]): Maps for which DySample's offsets have the spread asked for.
        pixels (float): That spread, see :func:`~yolov10_dysample.study.live.spread_offsets`.
        reference (str | None): The file of the published code, which gets the weights of ours; None leaves it out.
    """
    torch.manual_seed(SEED)
    modules = {name: make(channels).to(batch.device).eval() for name, make in UPSAMPLERS.items()}
    for module in modules.values():
        spread_all_offsets(module, batch[:1], pixels)
    for name in (PUBLISHED, ADAPTED) if reference else ():
        modules[name] = published_copy(modules[OURS], name, str(reference)).eval()
    return modules


def published_copy(layer: nn.Module, kind: str, reference: str) -> nn.Module:
    """The published layer with the weights of ours.

    Args:
        layer (DySample): Ours.
        kind (str): The published code as it is, or adapted: see :mod:`~yolov10_dysample.study.names`.
        reference (str): Its file.
    """
    if not isinstance(layer, DySample):
        raise TypeError(f"only a DySample layer has a published copy, got {type(layer).__name__}")
    make = load_published(reference)
    make = made_to_run(make) if kind == ADAPTED else make
    copy = make(layer.in_channels, layer.scale, layer.style, layer.groups, layer.dyscope)
    copy.load_state_dict(layer.state_dict(), strict=False)  # ours has no init_pos
    return copy.to(layer.offset.weight.device)


@functools.cache
def load_published(reference: str) -> Callable[..., nn.Module]:
    """The class ``DySample`` of the published code.

    Raises:
        ValueError: If the file cannot be loaded, or has no such class.
    """
    spec = importlib.util.spec_from_file_location("published_dysample", reference)
    try:
        module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
        spec.loader.exec_module(module)  # type: ignore[union-attr]
        return module.DySample
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"must be a Python file with the published class DySample, got {reference}: {reason}"
        ) from None


def made_to_run(published: Any) -> Callable[..., nn.Module]:
    """The published class made to accept channels_last: the one view that fails there gets what it can view."""

    class Adapted(published):
        def sample(self, x: Tensor, offset: Tensor) -> Tensor:
            return super().sample(x, offset.contiguous())

    return Adapted
