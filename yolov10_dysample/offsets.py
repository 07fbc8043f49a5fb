"""What the DySample layers of a model do to an image, as numbers: where they sample, and how far that is moved.

It looks at one ordinary forward pass and changes nothing: no weight, no hook and no setting of Ultralytics stays.
Importing it does not load Ultralytics.
"""

from __future__ import annotations

import contextlib
import copy
import glob
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolov10_dysample.dysample import DySample, start_positions
from yolov10_dysample.errors import described

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "Boxes",
    "OffsetField",
    "OffsetRecorder",
    "Result",
    "Source",
    "YOLOModel",
    "checked_network",
    "found_boxes",
    "model_name",
    "offset_fields",
    "offset_statistics",
    "predict_by_copy",
    "record_offsets",
    "sampling_places",
    "size_of_training",
]


#: What ``model.predict`` takes for one image: a file, an array (BGR), a tensor (RGB, 0 to 1) or an image of Pillow.
Source: TypeAlias = "str | Path | np.ndarray | Tensor | Image.Image"


class Boxes(Protocol):
    """What is used of Ultralytics' ``Boxes`` and ``OBB``: corners in pixels of the image, confidence and class."""

    data: Tensor

    @property
    def xyxy(self) -> Tensor: ...

    @property
    def conf(self) -> Tensor: ...

    @property
    def cls(self) -> Tensor: ...

    def __len__(self) -> int: ...


class Result(Protocol):
    """What is used of Ultralytics' ``Results``; ``orig_shape`` is height and width."""

    orig_img: np.ndarray
    orig_shape: tuple[int, int]
    names: dict[int, str]
    boxes: Boxes | None
    obb: Boxes | None

    def plot(self, **options: Any) -> np.ndarray: ...

    def __len__(self) -> int: ...


class YOLOModel(Protocol):
    """What is used of Ultralytics' ``YOLO``, which declares of its attributes only what they are at first."""

    model: Any
    predictor: Any
    overrides: Any

    def predict(self, source: Source, **options: Any) -> Any: ...


@dataclass(frozen=True, eq=False)
class OffsetField:
    """The offsets of one DySample layer for one image.

    Attributes:
        i (int): Index of the layer in the model.
        offset (Tensor[2, groups, scale * H, scale * W]): Horizontal, then vertical, in pixels of the layer's input,
            float32 on the CPU.
        scale (int): Output size over input size.
        init (str): Where an offset of zero samples, see :func:`~yolov10_dysample.dysample.dysample`.
        image (ndarray[height, width, 3]): What the network saw, padding included: RGB, uint8.
    """

    i: int
    offset: Tensor
    scale: int
    init: str
    image: np.ndarray

    @property
    def groups(self) -> int:
        return self.offset.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the layer's input."""
        return self.offset.shape[2] // self.scale, self.offset.shape[3] // self.scale

    @property
    def stride(self) -> float:
        """Pixels of ``image`` to one pixel of the layer's input."""
        return self.image.shape[0] / self.size[0]

    @property
    def statistics(self) -> dict[str, float]:
        """See :func:`offset_statistics`."""
        return offset_statistics(self.offset.flatten(0, 1)[None], self.scale)


class OffsetRecorder:
    """Notes what a network sees, and the offsets of its DySample layers, in its forward passes; the last one stands.

    Within a pass it raises nothing and changes nothing. What goes wrong there is raised when it is asked.

    Args:
        network (Module): A model of Ultralytics, or any other whose DySample layers have an index ``i``.
        images (int): How many images of a batch are noted, at least 1.
        once (bool): Note one pass only, and leave no hook behind it.
        of (Module, optional): The part of the network whose layers are noted; by default, all of it.

    Example:
        >>> from yolov10_dysample.dysample import DySample
        >>> layer = DySample(8)
        >>> layer.i = 0
        >>> recorder = OffsetRecorder(network := nn.Sequential(nn.Conv2d(3, 8, 2, stride=2), layer), once=True)
        >>> network(torch.rand(5, 3, 8, 12)).shape
        torch.Size([5, 8, 8, 12])
        >>> [list(field.offset.shape) for field in recorder.fields()[0]], len(network._forward_hooks)
        ([[2, 4, 8, 12]], 0)
    """

    def __init__(self, network: nn.Module, images: int = 1, once: bool = False, of: nn.Module | None = None) -> None:
        self.images = images
        self._seen: Tensor | None = None
        self._noted: dict[int, tuple[Tensor, DySample]] = {}
        self._error: Exception | None = None
        layers = [layer for layer in (of or network).modules() if isinstance(layer, DySample)]
        self._hooks = [
            network.register_forward_pre_hook(self._note_images),
            *(layer.register_forward_hook(self._note_offset) for layer in layers),
        ]
        if once:
            self._hooks.append(network.register_forward_hook(self.remove, always_call=True))

    def statistics(self) -> dict[int, dict[str, float]]:
        """:func:`offset_statistics` of each layer over the images, by its index."""
        self._check()
        return {i: offset_statistics(offset, layer.scale) for i, (offset, layer) in sorted(self._noted.items())}

    def fields(self) -> list[list[OffsetField]]:
        """For each image, those of the layers."""
        self._check()
        return [
            [
                OffsetField(i, offset[k].unflatten(0, (2, layer.groups)), layer.scale, layer.init, _as_picture(image))
                for i, (offset, layer) in sorted(self._noted.items())
            ]
            for k, image in enumerate(cast(Tensor, self._seen))
        ]

    def remove(self, *_: object) -> None:
        """Take the hooks away, so that no further pass is noted."""
        for hook in self._hooks:
            hook.remove()

    def __deepcopy__(self, memo: dict[int, object]) -> OffsetRecorder:
        return self  # a copy of the network, which Ultralytics predicts with, has hooks that report here

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
        if self._seen is None:
            raise RuntimeError("no image has passed through the network")

    def _note_images(self, network: nn.Module, inputs: tuple[Tensor]) -> None:
        with self._raising_nothing():
            # A copy: Ultralytics' plots multiply their images by 255, in place.
            self._seen = inputs[0][: self.images].detach().to("cpu", torch.float32, copy=True)

    def _note_offset(self, layer: DySample, inputs: tuple[Tensor], output: Tensor) -> None:
        with self._raising_nothing():
            offset = layer.predict_offset(inputs[0][: self.images]).detach().float().cpu()
            self._noted[cast(int, layer.i)] = offset, layer

    @contextlib.contextmanager
    def _raising_nothing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._error = error


def _as_picture(image: Tensor) -> np.ndarray:
    """A network's input, of one channel or more from 0 to 1, as an image of three, RGB, uint8."""
    channels = image[:3]
    channels = channels.expand(3, -1, -1) if len(channels) == 1 else F.pad(channels, (0, 0, 0, 0, 0, 3 - len(channels)))
    return (channels * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


def offset_fields(model: YOLOModel, source: Source, imgsz: int | None = None) -> list[OffsetField]:
    """The offsets of every DySample layer of a model, in one prediction.

    Args:
        model (YOLO): A model with DySample layers, of any task. It is left as it was.
        source: One image: a file, or anything else of which ``model.predict`` makes one result.
        imgsz (int, optional): As in ``model.predict``: by default the size of the training, else 640.

    Raises:
        ValueError: If the model has no DySample layer or is an exported one, ``source`` is not one image, ``imgsz`` is
            not a whole number of at least 32, or an offset is not a finite number.

    Example:
        >>> from ultralytics import YOLO
        >>> fields = offset_fields(YOLO("yolov10n-dysample.yaml"), np.zeros((48, 64, 3), np.uint8), imgsz=64)
        >>> [(field.i, list(field.offset.shape), field.stride) for field in fields]
        [(11, [2, 4, 4, 4], 32.0), (14, [2, 4, 8, 8], 16.0)]
    """
    return record_offsets(model, source, imgsz)[0]


def offset_statistics(offset: Tensor, scale: int) -> dict[str, float]:
    """How far offsets move, and how much of that depends on the place, in the unit of the offsets.

    Args:
        offset (Tensor[B, 2 * groups, scale * H, scale * W]): As :func:`~yolov10_dysample.dysample.dysample` takes it.
        scale (int): Output size over input size.

    Returns:
        dict[str, float]: ``mean``, ``p99`` (99th percentile) and ``largest`` of the lengths; ``spread``, the standard
        deviation over the positions of an image, of dx and dy in each group and at each sub-pixel of a cell, as the
        root of their mean square. A layer that moves every cell alike has a spread of 0: it does not look at the image.

    Example:
        >>> shift = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1).expand(1, 2, 4, 6)
        >>> offset_statistics(shift, scale=2)
        {'mean': 5.0, 'p99': 5.0, 'largest': 5.0, 'spread': 0.0}
    """
    offset = offset.detach().double()
    lengths = torch.hypot(*offset.chunk(2, dim=1)).cpu().numpy()
    cells = offset.unflatten(3, (-1, scale)).unflatten(2, (-1, scale))
    return {
        "mean": float(lengths.mean()),
        "p99": float(np.percentile(lengths, 99)),  # torch.quantile refuses more than 16 million
        "largest": float(lengths.max()),
        "spread": cells.var(dim=(2, 4), correction=0).mean().sqrt().item(),
    }


def sampling_places(offset: Tensor, scale: int, init: str = "bilinear", stride: float = 1.0) -> Tensor:
    """Where a layer samples: its start places moved by the offsets, and kept within the map.

    Args:
        offset (Tensor[2, groups, scale * H, scale * W]): In pixels of the layer's input.
        scale (int): Output size over input size.
        init (str): Where an offset of zero samples.
        stride (float): Pixels of the image to one pixel of the layer's input.

    Returns:
        Tensor[2, groups, scale * H, scale * W]: x, then y, in pixels of the image, from its top left corner: the centre
        of the first cell is at ``stride / 2``.

    Example:
        >>> sampling_places(torch.zeros(2, 1, 2, 4), scale=2, init="nearest", stride=32)[0, 0]
        tensor([[16., 16., 48., 48.],
                [16., 16., 48., 48.]])
    """
    height, width = (side // scale for side in offset.shape[-2:])
    x = (start_positions(width, scale, init, offset) + offset[0]).clamp(0, width - 1)
    y = (start_positions(height, scale, init, offset)[:, None] + offset[1]).clamp(0, height - 1)
    return (torch.stack((x, y)) + 0.5) * stride


def record_offsets(
    model: YOLOModel, source: Source, imgsz: int | None = None, conf: float = 0.25
) -> tuple[list[OffsetField], Result]:
    """The fields of :func:`offset_fields`, and the result of the same prediction."""
    network = checked_network(model)
    if not any(isinstance(layer, DySample) for layer in network.modules()):
        raise ValueError(
            f"{model_name(model)} has no DySample layer: train one (yolo train model=yolov10n-dysample.yaml ...), or "
            f"swap the upsampling of this one with yolov10_dysample.use_dysample()"
        )
    recorders: list[OffsetRecorder] = []
    result = predict_by_copy(model, source, imgsz, conf, lambda copied: recorders.append(OffsetRecorder(copied)))
    (fields,) = recorders[0].fields()
    _check_finite(model_name(model), {field.i: field.offset for field in fields})
    return fields, result


def _check_finite(name: str, offsets: dict[int, Tensor]) -> None:
    wrong = {i: int((~offset.isfinite()).sum()) for i, offset in offsets.items()}
    counts = ", ".join(f"{n} of {offsets[i].numel()} in layer {i}" for i, n in wrong.items() if n)
    if counts:
        raise ValueError(
            f"offsets must be finite numbers, and those of {name} are not: {counts}; the model has diverged: train it "
            f"again with a lower lr0, or take an earlier checkpoint"
        )


def predict_by_copy(
    model: YOLOModel,
    source: Source,
    imgsz: int | None,
    conf: float,
    watch: Callable[[nn.Module], None] = lambda copied: None,
) -> Result:
    """The result of a prediction by a copy of the network: Ultralytics fuses what it predicts with, and keeps it."""
    _check_source(source)
    if imgsz is None:
        imgsz = size_of_training(model)
    elif isinstance(imgsz, bool) or not isinstance(imgsz, int) or imgsz < 32:
        raise ValueError(f"imgsz must be a whole number of at least 32, got {imgsz!r}")
    network, predictor = model.model, model.predictor
    model.model, model.predictor = copy.deepcopy(network), None
    try:
        watch(model.model)
        quiet = dict.fromkeys(("verbose", "save", "save_txt", "save_crop", "show", "visualize", "augment"), False)
        results: Sequence[Result] = model.predict(_literally(source), imgsz=imgsz, conf=conf, **quiet)
    except Exception as error:  # of Ultralytics, of OpenCV, of a head that is not theirs
        raise ValueError(f"{model_name(model)} cannot predict on the source: {described(error)}") from error
    finally:
        model.model, model.predictor = network, predictor
    if len(results) != 1:
        raise ValueError(f"source must be one image, and Ultralytics reads {len(results)} in {source}")
    return results[0]


def size_of_training(model: YOLOModel) -> int:
    """The ``imgsz`` that ``yolo predict`` takes for a model if it is given none."""
    size = model.overrides.get("imgsz", 640)
    return int(size) if isinstance(size, (int, float)) else max(size)


def found_boxes(result: Result) -> Boxes | None:
    """The detections of a result, turned or upright; None where its task has none, or nothing was found."""
    return next((boxes for boxes in (result.obb, result.boxes) if boxes is not None and len(boxes)), None)


def checked_network(model: YOLOModel) -> nn.Module:
    network = getattr(model, "model", None)
    if not isinstance(network, nn.Module) or not hasattr(model, "predictor"):
        raise ValueError(
            f"the model must be YOLO(...) of a .pt or .yaml file, not of an export, got {model_name(model)}"
        )
    return network


def _literally(source: Source) -> Source:
    """A file, and not all that are called alike, for which Ultralytics takes a path with a ``*``."""
    if not isinstance(source, (str, Path)) or "*" not in (path := str(Path(source).absolute())):
        return source
    return glob.escape(path)


def _check_source(source: Source) -> None:
    """Refuse, of what Ultralytics would predict on, all files that are not one image."""
    if not isinstance(source, (str, Path)):
        return
    from ultralytics.data.utils import IMG_FORMATS
    from ultralytics.utils.patches import imread

    file = Path(source)
    if not file.exists():
        raise ValueError(f"source must be an image file, but there is no {source}")
    if not file.is_file():
        raise ValueError(f"source must be one image file, and {source} is a folder")
    if file.suffix[1:].lower() not in IMG_FORMATS:
        raise ValueError(f"source must be an image file ({', '.join(sorted(IMG_FORMATS))}), got {source}")
    try:
        read = imread(str(file)) is not None
    except Exception:  # OpenCV refuses an empty file by an error
        read = False
    if not read:  # which Ultralytics would only warn of
        raise ValueError(f"source must be an image file, and {source} cannot be read as one")


def model_name(model: YOLOModel) -> str:
    return str(getattr(model, "ckpt_path", None) or getattr(model, "model_name", None) or type(model).__name__)
