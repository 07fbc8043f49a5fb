"""The operators that upsample a map by 2: DySample and its peers, ready to run, and timed beside each other.

The published code is no part of this package: it is loaded from a file that the caller names, or left out.
Offsets of the size that trained ones have are given to fresh layers, never to weights that somebody trained.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolov10_dysample.dysample import VARIANTS, DySample
from yolov10_dysample.errors import described
from yolov10_dysample.study.exports import OPSET, open_onnx
from yolov10_dysample.study.model_cost import count_operations
from yolov10_dysample.study.settings import ADAPTED, OFFSET_SPREAD, OURS, PUBLISHED, Settings
from yolov10_dysample.study.statistics import compared, ratio, rounded
from yolov10_dysample.study.timing import SEED, merged, prepare_candidates, time_interleaved

__all__ = [
    "MEMORY_FORMATS",
    "SHAPES",
    "UPSAMPLERS",
    "YOLO_SHAPES",
    "Carafe",
    "Tell",
    "load_published",
    "made_to_run",
    "make_upsamplers",
    "measure_onnx_operators",
    "measure_operators",
    "published_copy",
    "spread_all_offsets",
    "spread_offsets",
]

#: Told what is being done, the steps done, and all steps.
Tell = Callable[[str, int, int], None]

PAPER_SHAPE = (1, 256, 120, 120)
#: Of the two DySample rows of yolov10n at 640 pixels.
YOLO_SHAPES = ((1, 256, 20, 20), (1, 128, 40, 40))
SHAPES = (*YOLO_SHAPES, (4, 256, 40, 40), PAPER_SHAPE)
SWEEP_CHANNELS = 128
MEMORY_FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
#: What every other upsampler's time is divided by.
BASE = "nearest"


class Carafe(nn.Module):
    """CARAFE (Wang et al., ICCV 2019) with its published settings, in plain torch instead of its CUDA kernel.

    Reassembly is a weighted sum of table rows, as ours is: faster here than `unfold` and a product.

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
        pixels (float): That spread, see :func:`spread_offsets`.
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
        kind (str): The published code as it is, or adapted: see :mod:`~yolov10_dysample.study.settings`.
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
        raise ValueError(
            f"must be a Python file with the published class DySample, got {reference}: {described(error)}"
        ) from None


def made_to_run(published: Any) -> Callable[..., nn.Module]:
    """The published class made to accept channels_last: the one view that fails there gets what it can view."""

    class Adapted(published):
        def sample(self, x: Tensor, offset: Tensor) -> Tensor:
            return super().sample(x, offset.contiguous())

    return Adapted


@torch.no_grad()
def spread_offsets(layer: DySample, x: Tensor, pixels: float) -> None:
    """Scale the offset weights of a layer so that its offsets for ``x`` have a standard deviation of so many pixels.

    A fresh layer moves what it samples by a thousandth of a pixel: too little for a measurement of cost or of rounding.

    Args:
        layer (DySample): A layer whose offsets are not all zero, as those of a fresh ``init="nearest"`` are.
        x (Tensor[B, in_channels, H, W]): An input of the layer.
        pixels (float): In pixels of ``x``.

    Raises:
        ValueError: If they are all zero.

    Example:
        >>> layer, x = DySample(64), torch.rand(1, 64, 5, 4)
        >>> spread_offsets(layer, x, 0.5)
        >>> round(layer.predict_offset(x).std().item(), 3)
        0.5
    """
    spread = layer.predict_offset(x).std()
    if not spread > 0:
        raise ValueError(f"the offsets of a layer must differ to be spread, got a standard deviation of {spread:g}")
    layer.offset.weight.mul_(pixels / spread)


@torch.no_grad()
def spread_all_offsets(module: nn.Module, images: Tensor, pixels: float) -> None:
    """Do :func:`spread_offsets` to every DySample layer of a module, for what reaches it of the images."""

    def spread(layer: Any, inputs: tuple) -> None:
        spread_offsets(layer, inputs[0], pixels)

    hooks = [layer.register_forward_pre_hook(spread) for layer in module.modules() if isinstance(layer, DySample)]
    module(images)
    for hook in hooks:
        hook.remove()


def measure_operators(settings: Settings, tell: Tell) -> dict[str, Any]:
    """Every upsampler at every shape, in both memory formats, and by size."""
    shapes = [time_upsamplers(shape, layout, settings, tell) for layout in MEMORY_FORMATS for shape in SHAPES]
    sweep = [
        time_upsamplers((1, SWEEP_CHANNELS, size, size), "channels_last", settings, tell) for size in settings.sizes
    ]
    ratios = {
        layout: [
            e["ours_over_published"]["median"]
            for e in shapes
            if e["memory_format"] == layout and "ours_over_published" in e
        ]
        for layout in MEMORY_FORMATS
    }
    if not all(ratios.values()):  # the published code was not given, or does not run
        return {"shapes": shapes, "sweep": sweep}
    means = {layout: rounded(geometric_mean(values)) for layout, values in ratios.items()}
    return {"shapes": shapes, "ours_over_published": means, "sweep": sweep}


def time_upsamplers(shape: tuple[int, ...], memory_format: str, settings: Settings, tell: Tell) -> dict[str, Any]:
    """Every upsampler at one shape."""
    torch.manual_seed(SEED)
    layout, device = MEMORY_FORMATS[memory_format], settings.torch_device
    batch = torch.randn(shape).to(device)
    modules = make_upsamplers(shape[1], batch, OFFSET_SPREAD, settings.reference)
    if memory_format == "contiguous":
        modules.pop(ADAPTED, None)  # the same as published
    counts = {name: count_operations(module, batch) for name, module in modules.items()}
    modules = {name: module.to(memory_format=layout) for name, module in modules.items()}
    batch = batch.contiguous(memory_format=layout)
    with torch.inference_mode():
        runs, facts = prepare_candidates(modules, lambda name: (lambda: modules[name](batch), counts[name]))
        stage = functools.partial(tell, f"operators, {memory_format}, {'x'.join(map(str, shape))}: timing")
        times = time_interleaved(runs, settings.rounds, device, stage)
        outputs = {name: runs[name]() for name in (OURS, PUBLISHED, ADAPTED) if name in runs}
    return {
        "shape": list(shape),
        "memory_format": memory_format,
        **_beside_published(times, outputs),
        "candidates": merged(facts, compared(times, "ms", BASE)),
    }


def measure_onnx_operators(settings: Settings, tell: Tell) -> list[dict[str, Any]]:
    """Single operators in ONNX Runtime on the CPU, at the shapes of yolov10n."""
    return [time_onnx_operators(shape, settings._replace(device="cpu"), tell) for shape in YOLO_SHAPES]


def time_onnx_operators(shape: tuple[int, ...], settings: Settings, tell: Tell) -> dict[str, Any]:
    """Nearest, ours and the published code at one shape."""
    torch.manual_seed(SEED)
    batch = torch.randn(shape)
    modules = make_upsamplers(shape[1], batch, OFFSET_SPREAD, settings.reference)

    def prepare(name: str) -> tuple[Callable[[], Any], dict[str, Any]]:
        file = Path(f"{name}.onnx")
        torch.onnx.export(modules[name], (batch,), str(file), opset_version=OPSET, dynamo=False)
        run, detail = open_onnx(file, batch, settings)
        return run, {"detail": detail}

    wanted = [name for name in (BASE, OURS, PUBLISHED) if name in modules]
    runs, facts = prepare_candidates(wanted, prepare)
    stage = functools.partial(tell, f"operators, onnxruntime, {'x'.join(map(str, shape))}: timing")
    times = time_interleaved(runs, settings.rounds, settings.torch_device, stage)
    outputs = {name: torch.from_numpy(runs[name]()[0]) for name in (OURS, PUBLISHED) if name in runs}
    return {
        "shape": list(shape),
        **_beside_published(times, outputs),
        "candidates": merged(facts, compared(times, "ms", BASE)),
    }


def _beside_published(times: dict[str, list[float]], outputs: dict[str, Tensor]) -> dict[str, Any]:
    """Ours over the published code, as it is or else made to run; nothing if neither runs."""
    peer = next((name for name in (PUBLISHED, ADAPTED) if name in outputs), None)
    if peer is None or OURS not in outputs:
        return {}
    return {
        "ours_over_published": ratio(times[OURS], times[peer]),
        "largest_difference": rounded(float((outputs[OURS] - outputs[peer]).abs().max())),
    }
