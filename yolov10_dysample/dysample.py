"""The DySample operator and layer. Knows torch and nothing of Ultralytics: the file can be lifted out as it stands.

The class path ``yolov10_dysample.dysample.DySample`` is pickled into users' checkpoints and must never change.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "INITS",
    "MAX_SCALE",
    "OFFSET_RANGE",
    "STYLES",
    "TRACED_FORMS",
    "VARIANTS",
    "DySample",
    "dysample",
    "is_whole_number",
    "start_positions",
]

INITS = ("bilinear", "nearest")
STYLES = ("lp", "pl")
MAX_SCALE = 8

#: What a layer multiplies its predicted offsets by, as published: four units of the convolution are one pixel.
OFFSET_RANGE = 0.25

#: How a layer samples in a trace: by ``grid_sample`` for each group, or by row gathers without it; the last with ops
#: only that X2Paddle 1.6 converts.
TRACED_FORMS = ("grid_sample", "gather", "x2paddle_gather")

#: Where an offset ends in the form without ``grid_sample``, in pixels: beyond any map, and a number of float16.
_FARTHEST = 2.0**15
_MAX_SEED = 2**62
_MOST_GROUPS_SUGGESTED = 64

#: The paper's four variants, as arguments of :class:`DySample`.
VARIANTS = {
    "dysample": {"style": "lp", "groups": 4, "dyscope": False},
    "dysample+": {"style": "lp", "groups": 4, "dyscope": True},
    "dysample-s": {"style": "pl", "groups": 8, "dyscope": False},
    "dysample-s+": {"style": "pl", "groups": 8, "dyscope": True},
}


def dysample(x: Tensor, offset: Tensor, scale: int = 2, init: str = "bilinear") -> Tensor:
    """Upsample ``x`` by sampling it bilinearly at its output pixels' own places, each moved by an offset.

    With zero offsets this is ``F.interpolate(x, scale_factor=scale, mode=init)``, ``align_corners=False``. Places
    outside the map are moved to the centre of the nearest border pixel.

    Args:
        x (Tensor[B, C, H, W]): The map to upsample; floating point, any memory format.
        offset (Tensor[B, 2 * groups, scale * H, scale * W]): How far to move each place, in pixels of ``x``: the
            horizontal offsets of every group, then the vertical ones. Group ``k`` moves channels ``k * C / groups`` to
            ``(k + 1) * C / groups``.
        scale (int): Output size over input size, 2 to 8.
        init (str): Where an offset of zero samples. ``"bilinear"``: at the centre of the output pixel. ``"nearest"``:
            at the centre of the input pixel that the output pixel lies in.

    Returns:
        Tensor[B, C, scale * H, scale * W]: In the dtype and memory format of ``x``. Coordinates are never coarser than
        float32: float16 places 80 columns only to 1/16 of a pixel. A NaN offset gives NaN at its place, in all channels
        of its group; an infinite one samples the border.

    Raises:
        ValueError: If the shapes, ``scale`` or ``init`` do not fit together.

    Example:
        >>> x = torch.arange(4.0).view(1, 1, 2, 2)
        >>> dysample(x, torch.zeros(1, 2, 4, 4), init="nearest")[0, 0, 0].round(decimals=3)
        tensor([0., 0., 1., 1.])
        >>> half_a_pixel_right = torch.tensor([0.5, 0.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
        >>> dysample(x, half_a_pixel_right, init="nearest")[0, 0, 0].round(decimals=3)
        tensor([0.5000, 0.5000, 1.0000, 1.0000])

    Source: Liu et al., "Learning to Upsample by Learning to Sample", ICCV 2023, sections 3.1 and 3.2; equal to
    tiny-smart/dysample at efcf8ae.
    """
    if not _is_traced():  # where comparing sizes would freeze them
        _check_call(x, offset, scale, init)
        learns = torch.is_grad_enabled() and (x.requires_grad or offset.requires_grad)
        finite = offset.dtype == x.dtype and _suits_rows(x) and not learns and _has_finite_sum(offset)
        if finite and _has_finite_sum(x):
            place = offset.permute(0, 2, 3, 1).unflatten(-1, (2, -1)).movedim(-2, 0)
            return _sample_by_embedding_bag(x, place.clone(memory_format=torch.contiguous_format), scale, init)
    return _sample_folded_groups(x, *_grid_coordinates(x, offset, scale, init))


def start_positions(size: int, scale: int, init: str, like: Tensor) -> Tensor:
    """Where an offset of zero samples, along one side of a map, before it is kept within the map.

    Args:
        size (int): Height or width of the map that is sampled.
        scale (int): Output size over input size, 2 to 8.
        init (str): ``"bilinear"`` or ``"nearest"``, as :func:`dysample` takes it.
        like (Tensor): A floating-point tensor, whose dtype and device the positions take.

    Returns:
        Tensor[scale * size]: In pixels of the map; 0 is the centre of the first pixel.

    Example:
        >>> start_positions(2, scale=2, init="bilinear", like=torch.empty(0))
        tensor([-0.2500,  0.2500,  0.7500,  1.2500])
        >>> start_positions(2, scale=2, init="nearest", like=torch.empty(0))
        tensor([0., 0., 1., 1.])

    Source: Liu et al., "Learning to Upsample by Learning to Sample", ICCV 2023, section 3.2.
    """
    index = _count(size * scale, like)
    return torch.floor(index / scale) if init == "nearest" else (index + 0.5) / scale - 0.5


def _count(size: int, like: Tensor) -> Tensor:
    """0 to ``size - 1``, in the dtype of a tensor and where it is."""
    if not torch.jit.is_tracing():
        return torch.arange(size, dtype=like.dtype, device=like.device)
    # A trace keeps a device for ever: the file would run nowhere but where it was made.
    return torch.arange(size, dtype=like.dtype).type_as(like)


def _grid_coordinates(x: Tensor, offset: Tensor, scale: int, init: str) -> tuple[Tensor, Tensor]:
    """Where to sample, as ``grid_sample`` wants it, x and y apart: -1 and 1 are the outer edges of the map."""
    height, width = x.shape[-2:]
    dx, dy = offset.to(torch.promote_types(x.dtype, torch.float32)).chunk(2, dim=1)
    # In four dimensions: pnnx 20260526, which Ultralytics pins, takes a vector of as many columns as there are groups
    # for one number to each group.
    start_x = start_positions(width, scale, init, dx).view(1, 1, 1, -1)
    start_y = start_positions(height, scale, init, dy).view(1, 1, -1, 1)
    return _grid_coordinate(start_x, dx, width), _grid_coordinate(start_y, dy, height)


def _grid_coordinate(start: Tensor, offset: Tensor, size: int) -> Tensor:
    # Runtimes have fast kernels for zero padding, not for border padding. The two give the same numbers once no
    # coordinate lies beyond the centre of a border pixel. The clamp stops one epsilon before that centre: without it,
    # rounding could mix in the zeros of the padding.
    # No number is divided by the size: in a trace that is the reciprocal of an integer, which Core ML lacks.
    limit = (size - 1) / size - torch.finfo(offset.dtype).eps
    return ((2 * start + 1) / size - 1 + offset / (size / 2)).clamp(-limit, limit)


def _sample_folded_groups(x: Tensor, grid_x: Tensor, grid_y: Tensor) -> Tensor:
    """Sample every group as an image of its own: torch's CPU kernel runs in parallel over images only."""
    batch, channels, height, width = x.shape
    groups, *out = grid_x.shape[1:]
    grid = torch.stack((grid_x, grid_y), dim=-1).flatten(0, 1)
    images = x.to(grid.dtype).reshape(batch * groups, channels // groups, height, width)
    y = F.grid_sample(images, grid, align_corners=False).reshape(batch, channels, *out)
    return y.to(x.dtype).contiguous(
        memory_format=torch.channels_last if _is_channels_last(x) else torch.contiguous_format
    )


def _between(start: Tensor, end: Tensor, part: Tensor) -> Tensor:
    return start + (end - start) * part  # torch.lerp() is four times as many nodes in ONNX


def _embed_rows(table: Tensor, index: Tensor) -> Tensor:
    return F.embedding(index, table)


def _index_rows(table: Tensor, index: Tensor) -> Tensor:
    return table[index].reshape(*index.shape, -1)  # X2Paddle writes table[[index]], which has a dimension more


def _floor_by_comparing(values: Tensor) -> Tensor:
    toward_zero = values.to(torch.int64).to(values.dtype)
    return toward_zero - (values < toward_zero).to(values.dtype)


def _own_pixel(size: int, scale: int, like: Tensor) -> Tensor:
    """The pixel that each output pixel lies in, along one side of a map, as integers like those of a tensor."""
    return _count(size * scale, like) // scale


def _neighbours(moved_by: Tensor, pixel: Tensor) -> tuple[Tensor, ...]:
    """The pixels on both sides of each place along one side of the map, kept within it."""
    near = pixel + moved_by
    # As max() and min(), because TensorRT's Clip takes no integers, nor X2Paddle maximum() and minimum().
    first, last = pixel[:1], pixel[-1:]
    return tuple(torch.min(torch.max(neighbour, first), last) for neighbour in (near, near + 1))


def _suits_rows(x: Tensor) -> bool:
    """Whether the groups of a map's pixels are rows of a table, in memory that ``embedding_bag`` is fast in."""
    return (
        x.device.type == "cpu"
        and type(x) is Tensor  # a fake tensor, say, has no numbers to look at
        and x.dtype == torch.float32
        and _is_channels_last(x)
        and x.shape[0] > 0
        and x.numel() < 2**31
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")  # whose convolutions would round the places to bfloat16
    )


def _has_finite_sum(values: Tensor) -> bool:
    """Whether neither NaN nor infinity is among the values, in one quick pass; very large values may be refused too.

    No index may be computed from NaN, and ``grid_sample`` decides which places a NaN in the map reaches.
    """
    return math.isfinite(values.sum().item())


def _sample_by_embedding_bag(x: Tensor, place: Tensor, scale: int, init: str) -> Tensor:
    """Inference on channels_last maps on a CPU, as `yolo predict` runs: faster than ``grid_sample`` there.

    In that memory format each group of a pixel is one row of a table, and bilinear sampling is a weighted sum of four
    rows, which ``embedding_bag`` does whole rows at a time.

    Args:
        x (Tensor[B, C, H, W]): A map that :func:`_suits_rows`.
        place (Tensor[2, B, scale * H, scale * W, groups]): Horizontal and vertical offsets; is written over.
        scale (int): Output size over input size.
        init (str): Where an offset of zero samples.
    """
    batch, channels, height, width = x.shape
    rows, columns, groups = place.shape[2:]
    inside = 1 - torch.finfo(torch.float32).eps  # so that there is a next column and row to the last place
    place[0].add_(start_positions(width, scale, init, place).view(-1, 1)).clamp_(0, (width - 1) * inside)
    place[1].add_(start_positions(height, scale, init, place).view(-1, 1, 1)).clamp_(0, (height - 1) * inside)
    place = place.view(2, batch, -1)
    column, row = place.to(torch.int32)
    right, below = place.frac_()

    first = torch.add(column, row, alpha=width).mul_(groups)
    first.view(-1, groups).add_(torch.arange(groups, dtype=torch.int32, device=x.device))
    if batch > 1:
        image = height * width * groups
        first.add_(torch.arange(0, batch * image, image, dtype=torch.int32, device=x.device).view(-1, 1))
    to_right, to_below = groups * (width > 1), width * groups * (height > 1)
    # Written in place, column by column: on one thread stack() takes longer.
    index = torch.empty((*first.shape, 4), dtype=torch.int32, device=x.device)
    for step, column in zip((0, to_right, to_below, to_right + to_below), index.unbind(-1), strict=True):
        torch.add(first, step, out=column)
    weight = torch.empty((*first.shape, 4), dtype=x.dtype, device=x.device)
    neither, only_right, only_below, both = weight.unbind(-1)
    product = right * below
    both.copy_(product)
    torch.sub(right, product, out=only_right)
    torch.sub(below, product, out=only_below)
    torch.sub(1 - right, below - product, out=neither)

    table = x.permute(0, 2, 3, 1).reshape(-1, channels // groups)
    y = F.embedding_bag(index.view(-1, 4), table, per_sample_weights=weight.view(-1, 4), mode="sum")
    return y.view(batch, rows, columns, channels).permute(0, 3, 1, 2)


def _is_plain_convolution(module: nn.Module) -> bool:
    """Whether nothing but its weight and bias has a say in what a layer gives."""
    hooks = (
        *(module._forward_hooks, module._forward_pre_hooks),
        *(nn.modules.module._global_forward_hooks, nn.modules.module._global_forward_pre_hooks),
    )
    return type(module) is nn.Conv2d and "forward" not in module.__dict__ and not any(hooks)


def _is_channels_last(x: Tensor) -> bool:
    if torch.compiler.is_compiling():
        return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    try:  # which a compiler may not follow
        return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    except RuntimeError:  # torch.vmap has no memory formats
        return False


def _is_traced() -> bool:
    return torch.jit.is_tracing() or (hasattr(torch.compiler, "is_exporting") and torch.compiler.is_exporting())


def _check_call(x: Tensor, offset: Tensor, scale: int, init: str) -> None:
    _check_scale(scale)
    _check_choice("init", init, INITS)
    _check_map(x)
    batch, channels, height, width = x.shape
    if not offset.is_floating_point() or offset.device != x.device:
        raise ValueError(
            f"offset must be floating-point numbers where x is, on {x.device}, got {offset.dtype} on {offset.device}"
        )
    if offset.dim() != 4 or offset.shape[0] != batch or offset.shape[2:] != (height * scale, width * scale):
        raise ValueError(
            f"offset must be [B, 2 * groups, scale * H, scale * W] = [{batch}, 2 * groups, {height * scale}, "
            f"{width * scale}] for x of shape {list(x.shape)} and scale {scale}, got {list(offset.shape)}"
        )
    pairs = offset.shape[1]
    if pairs < 2 or pairs % 2 or channels % (pairs // 2):
        raise ValueError(
            f"offset must have 2 * groups channels, with groups a divisor of x's {channels} channels, got {pairs}"
        )


def _check_map(x: Tensor) -> None:
    if x.dim() != 4 or not x.is_floating_point():
        raise ValueError(f"x must be a floating-point map [B, C, H, W], got {x.dtype} of shape {list(x.shape)}")
    height, width = x.shape[2:]
    if height < 1 or width < 1:
        raise ValueError(f"x must have at least one row and one column, got H x W = {height} x {width}")


def _check_scale(scale: int) -> None:
    if not is_whole_number(scale) or not 2 <= scale <= MAX_SCALE:
        raise ValueError(
            f"scale must be a whole number from 2 to {MAX_SCALE} (output size over input size), got {scale!r}"
        )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def is_whole_number(value: object) -> bool:
    """Whether a value is an int, and not True or False, which Python counts among them.

    Example:
        >>> [is_whole_number(value) for value in (2, 2.0, True, "2")]
        [True, False, False, False]
    """
    return isinstance(value, int) and not isinstance(value, bool)


class DySample(nn.Module):
    """Learnt upsampling: predicts an offset for every output pixel and samples the input there.

    See :func:`dysample` for the sampling. The offsets come from a 1x1 convolution and are scaled by 0.25
    (:data:`OFFSET_RANGE`), or, with ``dyscope``, by ``0.5 * sigmoid(scope(x))``, which starts at 0.25.

    Args:
        in_channels (int): Channels of the input, and of the output.
        scale (int): Output size over input size, 2 to 8.
        style (str): ``"lp"`` predicts the offsets at the input resolution and shuffles them to the output's;
            ``"pl"`` shuffles the input first, for fewer weights.
        groups (int): How many groups of channels get offsets of their own; divides ``in_channels``.
        dyscope (bool): Predict the range of the offsets too.
        init (str): Where the layer starts. ``"bilinear"``, as published: at bilinear upsampling, but for offsets of the
            order of 0.001. ``"nearest"``: at ``nn.Upsample(mode="nearest")``, but for rounding, for a model whose other
            weights were trained with that.

    Shape:
        ``[B, in_channels, H, W]`` to ``[B, in_channels, scale * H, scale * W]``; dtype and memory format are kept.

    Raises:
        ValueError: If an argument is out of its range, or ``in_channels`` cannot be split as asked; when called, if
            the map is not floating point, not of four dimensions or not of ``in_channels`` channels.

    Note:
        Making a layer takes no numbers from torch's global random generator: with one seed, the layers made after it
        start the same whether or not a model has DySample in it. A ``state_dict`` of the published code loads.

    Attributes:
        traced_form (str): One of :data:`TRACED_FORMS`, for a runtime that is faster or right only with that.

    Example:
        >>> DySample(64)(torch.rand(2, 64, 5, 4)).shape
        torch.Size([2, 64, 10, 8])
        >>> sum(p.numel() for p in DySample(256, **VARIANTS["dysample-s+"]).parameters())
        2064

    Source: Liu et al., "Learning to Upsample by Learning to Sample", ICCV 2023, https://arxiv.org/abs/2308.15085.
    """

    traced_form = "grid_sample"

    def __init__(
        self,
        in_channels: int,
        scale: int = 2,
        style: str = "lp",
        groups: int = 4,
        dyscope: bool = False,
        init: str = "bilinear",
    ) -> None:
        super().__init__()
        _check_layer(in_channels, scale, style, groups, dyscope, init)
        self.in_channels = in_channels
        self.scale = scale
        self.style = style
        self.groups = groups
        self.dyscope = dyscope
        self.init = init
        if style == "lp":
            width, outputs = in_channels, 2 * groups * scale**2
        else:
            width, outputs = in_channels // scale**2, 2 * groups
        # nn.Conv2d draws weights that are not used: without this it would move the global generators. Not skip_init(),
        # which goes by the meta device, and that loads half a second and 40 MB of sympy.
        device = torch.empty(0).device
        with torch.random.fork_rng([device.index] if device.type == "cuda" else []):
            self.offset = nn.Conv2d(width, outputs, 1)
            if dyscope:
                self.scope = nn.Conv2d(width, outputs, 1, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start again, at ``init``; repeatable after ``torch.manual_seed``, without moving the global generator."""
        nn.init.zeros_(self.get_parameter("offset.bias"))
        if self.dyscope:
            nn.init.zeros_(self.scope.weight)
        if self.init == "nearest":
            nn.init.zeros_(self.offset.weight)
            return
        # A seed from a copy of the generator: the numbers that come next belong to the next layer.
        state = torch.Generator().set_state(torch.get_rng_state())
        seed = int(torch.randint(_MAX_SEED, (), generator=state, device="cpu"))
        weight = torch.empty(self.offset.weight.shape, device="cpu")
        weight.normal_(0.0, 0.001, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            self.offset.weight.copy_(weight)

    def predict_offset(self, x: Tensor) -> Tensor:
        """The offsets at which the layer samples ``x``, as :func:`dysample` takes them, in pixels of ``x``.

        Example:
            >>> DySample(64, init="nearest").predict_offset(torch.rand(1, 64, 5, 4)).abs().max().item()
            0.0
        """
        if not (_is_traced() or torch.compiler.is_compiling()):  # sizes that are compared there would be frozen
            self._check_input(x)
        features = F.pixel_shuffle(x, self.scale) if self.style == "pl" else x
        offset = self.offset(features)
        offset = offset * (self.scope(features).sigmoid() * (2 * OFFSET_RANGE) if self.dyscope else OFFSET_RANGE)
        return F.pixel_shuffle(offset, self.scale) if self.style == "lp" else offset

    def forward(self, x: Tensor) -> Tensor:
        if _is_traced():
            return self._forward_in_trace(x)
        if _suits_rows(x) and not self._learns(x) and self._has_plain_convolutions():
            self._check_input(x)
            place = self._predict_moves(x, last=True)
            # If x is not finite, nor is what is predicted from it.
            if place.dtype == x.dtype and _has_finite_sum(place):
                height, width = x.shape[2:]
                place = place.view(-1, height, width, 2, self.groups, self.scale, self.scale)
                place = place.permute(3, 0, 1, 5, 2, 6, 4).reshape(
                    2, -1, height * self.scale, width * self.scale, self.groups
                )
                return _sample_by_embedding_bag(x, place, self.scale, "nearest")  # they have their start within them
        return _sample_folded_groups(x, *_grid_coordinates(x, self.predict_offset(x), self.scale, self.init))

    def _forward_in_trace(self, x: Tensor) -> Tensor:
        if self.traced_form.endswith("gather"):
            return self._sample_by_gather(x)
        if self._has_plain_convolutions():
            return self._sample_by_grid(x)
        return _sample_folded_groups(x, *_grid_coordinates(x, self.predict_offset(x), self.scale, self.init))

    def _learns(self, x: Tensor) -> bool:
        return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *self.parameters()))

    def _has_plain_convolutions(self) -> bool:
        """Whether the offsets follow from weights and biases alone: adapters and quantisers wrap or replace layers."""
        layers = (self.offset, self.scope) if self.dyscope else (self.offset,)
        own = type(self).predict_offset is DySample.predict_offset
        return own and all(_is_plain_convolution(layer) for layer in layers)

    def _sample_by_grid(self, x: Tensor) -> Tensor:
        """Sample by ``grid_sample`` in a trace, with few and small ops around it.

        Places are computed at the size of ``x``, and from its middle, so that its limits are symmetrical.
        """
        groups, scale = self.groups, self.scale
        height, width = x.shape[-2:]
        move = self._predict_moves(x, pairs=True)
        is_y = _count(2, move).view(1, 2, 1).expand(groups, -1, scale**2)
        is_y = is_y.reshape(1, -1, 1, 1)
        is_x = 1 - is_y
        column, row = _count(width, move), _count(height, move).unsqueeze(-1)
        to_edge = 0.5 * is_x * width + 0.5 * is_y * height
        to_centre = to_edge - 0.5
        place = (column * is_x - to_centre) + move + row * is_y
        # Runtimes have fast kernels for zero padding, not for border padding. The two give the same numbers once no
        # place is beyond the centre of a border pixel. A little less: rounding could mix in the zeros of the padding.
        limit = to_centre * (1 - 2 * torch.finfo(move.dtype).eps)
        grid = F.pixel_shuffle(torch.max(torch.min(place, limit), -limit) / to_edge, scale)
        # In four dimensions and without touching the batch: ncnn takes far longer over folded groups. One
        # permute() for all groups is fewer nodes, but onnx2tf takes the wrong dimension where sides equal channels.
        parts = zip(x.split(self.in_channels // groups, dim=1), grid.split(2, dim=1), strict=True)
        sampled = [
            F.grid_sample(part.to(grid.dtype), place.permute(0, 2, 3, 1), align_corners=False) for part, place in parts
        ]
        # Not to(x.dtype), which a trace would keep when it is made half; and x itself was cast nowhere above, since a
        # cast that changes nothing returns the same tensor, which would then stand for what is cast.
        return torch.cat(sampled, dim=1).type_as(x)

    def _sample_by_gather(self, x: Tensor) -> Tensor:
        """Sample in a trace without ``grid_sample``, which some runtimes lack and others get wrong.

        A row of the table is one group of one pixel; each place takes four rows. The pixel that a place lies in stays
        an integer until it meets the whole part of what moves it, so that only numbers below 1 carry the fraction: a
        runtime that computes in float16 or bfloat16 rounds no coordinate, however large the map.

        X2Paddle 1.6 takes the table of an ``embedding`` for a weight, what ``floor`` is of for a Python number, and no
        weights that are computed: for it there are ops that come to the same, which are more nodes in ONNX.
        """
        for_x2paddle = self.traced_form == "x2paddle_gather"
        floor, rows_of = (_floor_by_comparing, _index_rows) if for_x2paddle else (torch.floor, _embed_rows)
        groups, scale = self.groups, self.scale
        batch, _, height, width = x.shape
        if for_x2paddle or not self._has_plain_convolutions():
            place = self._predict_places(x)
        else:
            place = F.pixel_shuffle(self._predict_moves(x), scale)
        place = place.permute(0, 2, 3, 1).clamp(-_FARTHEST, _FARTHEST)
        whole = floor(place)
        along_x, along_y = (place - whole).unsqueeze(-1).split(groups, dim=-2)
        whole = whole.to(torch.int64)
        right_by, down_by = whole.split(groups, dim=-1)
        left, right = _neighbours(right_by, _own_pixel(width, scale, right_by).unsqueeze(-1))
        above, below = _neighbours(down_by, _own_pixel(height, scale, down_by).view(-1, 1, 1))

        # The images of the first group, then those of the next: a row's number is then a column's, plus so much.
        table = torch.cat(x.split(self.in_channels // groups, dim=1)).to(place.dtype)
        table = table.permute(0, 2, 3, 1).reshape(-1, self.in_channels // groups)
        image = _count(batch, whole).view(-1, 1, 1, 1) + _count(groups, whole) * batch
        first = image * (height * width)
        above, below = above * width + first, below * width + first
        upper = _between(rows_of(table, above + left), rows_of(table, above + right), along_x)
        lower = _between(rows_of(table, below + left), rows_of(table, below + right), along_x)
        return _between(upper, lower, along_y).flatten(-2).permute(0, 3, 1, 2).type_as(x)

    def _predict_moves(self, x: Tensor, pairs: bool = False, last: bool = False) -> Tensor:
        """Where each place lies, from the centre of the pixel of ``x`` that its output pixel is in.

        At the size of ``x``, so that the range and the start of the offsets become part of the convolution's weights;
        and never more than an offset away from 0, so that no runtime needs to round large coordinates.

        Args:
            x (Tensor[B, in_channels, H, W]): The map.
            pairs (bool): x beside y in every group, or x of all groups first.
            last (bool): The channels are the last dimension of the result.

        Returns:
            Tensor[B, 2 * groups * scale**2, H, W]: In pixels of ``x``, at least float32, ready for ``pixel_shuffle``.
        """

        def predict(weight: Tensor, bias: Tensor | None = None) -> Tensor:
            if self.style == "pl":  # where the map is larger, and back
                y = F.conv2d(F.pixel_shuffle(x, self.scale), weight, bias)
                y = F.pixel_unshuffle(y, self.scale)
                y = y.permute(0, 2, 3, 1) if last else y
            else:
                y = F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias) if last else F.conv2d(x, weight, bias)
            return y.to(torch.promote_types(x.dtype, torch.float32))

        def in_order(parameter: Tensor) -> Tensor:
            by_group = parameter.unflatten(0, (2, self.groups, -1))
            return by_group.transpose(0, 1).flatten(0, 2) if pairs else parameter

        side = start_positions(1, self.scale, self.init, self.offset.weight)
        start = torch.stack((side.expand(self.scale, -1), side.unsqueeze(1).expand(-1, self.scale))).flatten(1)
        start = in_order(start.unsqueeze(1).expand(-1, self.groups, -1).flatten())
        # Not get_parameter(), which takes nothing but parameters: torch.func may have put plain tensors there.
        weight, bias = in_order(self.offset.weight), in_order(cast(Tensor, self.offset.bias))
        if self.dyscope:
            scope = predict(in_order(self.scope.weight)).sigmoid() * (2 * OFFSET_RANGE)
            move = predict(weight, bias) * scope
        elif self.style == "lp":
            return predict(weight * OFFSET_RANGE, bias * OFFSET_RANGE + start)
        else:
            move = predict(weight * OFFSET_RANGE, bias * OFFSET_RANGE)
        return move + start.to(move.dtype).view(-1, *(() if last else (1, 1)))

    def _predict_places(self, x: Tensor) -> Tensor:
        """What ``pixel_shuffle`` makes of :meth:`_predict_moves`, with the layer's convolutions as they are."""
        offset = self.predict_offset(x)
        offset = offset.to(torch.promote_types(x.dtype, torch.float32))
        height, width = x.shape[-2:]
        side = start_positions(1, self.scale, self.init, offset)
        across = side.expand(width, -1).reshape(1, 1, 1, -1)
        down = side.expand(height, -1).reshape(1, 1, -1, 1)
        dx, dy = offset.chunk(2, dim=1)
        return torch.cat((dx + across, dy + down), dim=1)

    def _check_input(self, x: Tensor) -> None:
        _check_map(x)
        if x.shape[1] != self.in_channels:
            raise ValueError(
                f"x must have in_channels = {self.in_channels} channels, got {x.shape[1]} in shape {list(x.shape)}"
            )

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, scale={self.scale}, style={self.style!r}, groups={self.groups}, "
            f"dyscope={self.dyscope}, init={self.init!r}"
        )

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing, unexpected, errors) -> None:
        # The published code saves its start positions, and until 2024-03-27 gave `scope` a bias.
        position = state_dict.pop(f"{prefix}init_pos", None)
        if position is not None and self.init != "bilinear":
            errors.append(
                f"{prefix}init_pos: these weights were trained from the published bilinear start; "
                f"load them into DySample(init='bilinear'), not init={self.init!r}"
            )
        if self.dyscope:
            bias = state_dict.pop(f"{prefix}scope.bias", None)
            if bias is not None and bias.any():
                errors.append(
                    f"{prefix}scope.bias: an early version of the published code trained this bias; DySample has none, "
                    f"as published since 2024-03-27, so these weights need retraining"
                )
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing, unexpected, errors)


def _check_layer(in_channels: int, scale: int, style: str, groups: int, dyscope: bool, init: str) -> None:
    _check_scale(scale)
    _check_choice("style", style, STYLES)
    _check_choice("init", init, INITS)
    if not isinstance(dyscope, bool):
        raise ValueError(f"dyscope must be True or False, got {dyscope!r}")
    if not is_whole_number(in_channels) or in_channels < 1:
        raise ValueError(f"in_channels must be a whole number of at least 1, got {in_channels!r}")
    if not is_whole_number(groups) or groups < 1 or in_channels % groups:
        raise ValueError(
            f"groups must be a whole number that divides in_channels ({in_channels}), got {groups!r}; "
            f"{_divisor_near(in_channels, groups)} would do"
        )
    if style == "pl" and in_channels % scale**2:
        raise ValueError(
            f"style 'pl' needs in_channels divisible by scale**2 = {scale**2}, got {in_channels}; use style 'lp'"
        )


def _divisor_near(number: int, wanted: int) -> int:
    target = wanted if is_whole_number(wanted) else 4
    divisors = (d for d in range(1, min(number, _MOST_GROUPS_SUGGESTED) + 1) if number % d == 0)
    return min(divisors, key=lambda d: abs(d - target))
