"""Swaps the upsampling layers of a model already built for DySample, in place.

It must change nothing before everything has been checked, and must never import Ultralytics: whether a swapped model
can be built is asked of ``registration``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import nn

from yolov10_dysample.convert import UPSAMPLE, convert_rows
from yolov10_dysample.dysample import DySample
from yolov10_dysample.map_sizes import BuiltModel
from yolov10_dysample.registration import build_on_meta

__all__ = ["use_dysample"]

Model = TypeVar("Model")


class ModelOwner(Protocol):
    """What is used of ``YOLO``, ``RTDETR`` and the like, which hold a built model as ``model``."""

    predictor: object
    ckpt: Any


def use_dysample(
    model: Model,
    *,
    rows: Iterable[int] | None = None,
    style: str = "lp",
    groups: int = 4,
    dyscope: bool = False,
    init: str = "nearest",
) -> Model:
    """Swap the upsampling layers of a model already built, in place.

    With ``init="nearest"``, the default here, a model that upsamples by ``nearest`` gives the same output as before,
    but for rounding. ``model.yaml`` is changed too, since that is what the trainer builds its model from: ``train``,
    ``val``, ``predict``, ``export``, and ``save`` and loading again all keep DySample and every weight.

    Args:
        model: ``YOLO(...)``, ``RTDETR(...)``, ..., or, for loops of your own, its ``torch.nn.Module``, of whose swap
            the ``YOLO`` that holds it, its ``train`` and its predictor are not told; any task, fused or not.
        rows (Iterable[int]): Indices of the layers to swap; None for all ``nn.Upsample``.
        style, groups, dyscope, init: As in :class:`~yolov10_dysample.dysample.DySample`.

    Returns:
        The same object. New layers have the device, the dtype, the training mode and the attributes ``i``, ``f``,
        ``type`` and ``np`` that Ultralytics expects; they require gradients if any other parameter does.

    Raises:
        TypeError: If ``model`` is none of those above.
        RuntimeError: If DySample could not be registered with Ultralytics.
        ValueError: If there is nothing to swap, or the layers asked for cannot be made; the model is then unchanged.

    Warns:
        UserWarning: If a layer upsampled by ``bilinear`` and is to start as ``nearest``; and of YOLO-World and YOLOE,
            which Ultralytics trains as their YAML file has them.

    Note:
        A training that was interrupted is not resumed with other layers: ``train`` starts a new one, and older
        releases of Ultralytics resume the file with ``resume=True``, without the swap.

        What opens the weights file itself in another process (``tune``; ``train`` on several GPUs before Ultralytics
        pickled the model for it) finds the file as it was: save the swapped model and start from that file.

    Example:
        >>> from ultralytics import YOLO
        >>> model = use_dysample(YOLO("yolov10n.yaml"))
        >>> model.model.model[11].init
        'nearest'
    """
    network = _network(model)
    converted, swapped = convert_rows(network.yaml, rows=rows, style=style, groups=groups, dyscope=dyscope, init=init)
    layers = _new_layers(network, converted, swapped)
    _warn(network, converted, swapped, init)
    for i, layer in layers.items():
        network.model[i] = layer
    network.yaml = converted
    if network is not model:
        _sync_owner(cast(ModelOwner, model), network)
    return model


def _network(model: object) -> BuiltModel:
    """The module that has the layers as ``model`` and their YAML as ``yaml``: the argument itself or what it holds."""
    candidate: Any
    for candidate in (model, getattr(model, "model", None)):
        layers = getattr(candidate, "model", None)
        if isinstance(layers, nn.Sequential) and isinstance(getattr(candidate, "yaml", None), dict):
            return candidate
    raise TypeError(
        f"use_dysample takes YOLO(...) of a .pt or .yaml file, or its torch.nn.Module (layers as .model, an "
        f"nn.Sequential, and their YAML as .yaml), got {type(model).__name__}"
    )


def _new_layers(network: BuiltModel, converted: dict, swapped: list[int]) -> dict[int, DySample]:
    where = converted.get("yaml_file", "the model")
    old = network.model
    for i in swapped:
        if i >= len(old) or type(old[i]) is not nn.Upsample:
            kind = type(old[i]).__name__ if i < len(old) else "missing"
            raise ValueError(f"{where}: row {i} of model.yaml is {UPSAMPLE}, but layer {i} of the model is {kind}")
    planned = build_on_meta(converted)
    _check_plan(old, planned, swapped, where)

    parameters = list(network.parameters())
    like = next((p for p in parameters if p.is_floating_point()), torch.empty(0))
    trainable = not parameters or any(p.requires_grad for p in parameters)
    layers = {}
    for i in swapped:
        layer: Any = (
            DySample(*_arguments(cast(DySample, planned[i]))).to(like.device, like.dtype).train(old[i].training)
        )
        layer.requires_grad_(trainable)
        layer.i, layer.f, layer.type = old[i].i, old[i].f, planned[i].type
        layer.np = sum(p.numel() for p in layer.parameters())  # Ultralytics 8.3.0 has the number on the class
        layers[i] = layer
    return layers


def _warn(network: BuiltModel, converted: dict, swapped: list[int], init: str) -> None:
    """Of what is done as asked for, and may not be what was meant."""
    moved = [i for i in swapped if getattr(network.model[i], "mode", None) == "bilinear" and init == "nearest"]
    if moved:
        warnings.warn(
            f"row {', '.join(map(str, moved))} upsampled by bilinear, and DySample starts as nearest there: write "
            'init="bilinear" to keep the output',
            stacklevel=3,
        )
    if hasattr(network, "set_classes"):
        name = Path(converted.get("yaml_file", "yolov8s-world.yaml")).stem
        warnings.warn(
            "Ultralytics trains YOLO-World and YOLOE models as their YAML file has them, without what is swapped here: "
            f'to train, YOLO("{name}-dysample.yaml").load(...)',
            stacklevel=3,
        )


def _check_plan(old: nn.Sequential, planned: nn.Sequential, swapped: list[int], where: str) -> None:
    """Refuse a model whose weights are not those of its YAML: the new layers would get wrong widths."""
    expected = planned[: max(swapped)].state_dict()
    for name, weight in old[: max(swapped)].state_dict().items():
        if name in expected and expected[name].shape != weight.shape:
            raise ValueError(
                f"{where}: model.yaml does not describe this model: layer {name} has shape {list(weight.shape)}, by "
                f"the YAML {list(expected[name].shape)}"
            )


def _arguments(layer: DySample) -> tuple[int, int, str, int, bool, str]:
    return layer.in_channels, layer.scale, layer.style, layer.groups, layer.dyscope, layer.init


def _sync_owner(model: ModelOwner, network: BuiltModel) -> None:
    model.predictor = None  # holds the layers as they were
    if not getattr(model, "ckpt", None):
        # Without a checkpoint the trainer would build from the name of the YAML file, where DySample is not.
        model.ckpt = {"model": network}
    elif isinstance(model.ckpt, dict):  # of an interrupted training, perhaps, whose optimiser knows other layers
        model.ckpt = {**model.ckpt, "epoch": -1, "optimizer": None}
