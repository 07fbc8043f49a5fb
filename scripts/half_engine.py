"""Simulates an engine that computes all in float16, on the ONNX graph of a whole model, and says where its DySample
layers sample. It must never be taken for a run of such an engine: what an engine fuses it may round less.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from yolov10_dysample.dysample import DySample, dysample

#: How far a place may be from where float32 samples, in pixels of the map.
LARGEST_ERROR = 0.01
ZIGZAG = "zigzag"


class SampledLayer(NamedTuple):
    """A DySample layer in an ONNX graph: its nodes, the map that it takes and the maps that it gives, by name.

    Several are its groups, in order: whatever slims a graph joins their Concat with the next one.
    """

    nodes: list[onnx.NodeProto]
    takes: str
    gives: list[str]


def in_half_precision(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with every floating-point number in it rounded to float16: constants, inputs, and what each node
    gives. Integers stay as they are, as in an engine.
    """
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    graph = model.graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    for constant in graph.initializer:
        if constant.data_type == TensorProto.FLOAT:
            constant.CopyFrom(numpy_helper.from_array(_rounded(numpy_helper.to_array(constant)), constant.name))
    kept = {output.name for output in graph.output}
    nodes, renamed = [], {}
    for value in graph.input:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT and value.name != ZIGZAG:
            renamed[value.name] = f"{value.name} in half"
            nodes += _casts(value.name, renamed[value.name])
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        casts = []
        for i, name in enumerate(node.output):
            if kinds.get(name) != TensorProto.FLOAT:
                continue
            # A graph's outputs keep their names, whoever else reads them.
            before = f"{name} before rounding" if name in kept else name
            after = name if name in kept else f"{name} in half"
            node.output[i] = before
            renamed[name] = after
            casts += _casts(before, after)
        nodes += [node, *casts]
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    return model


def _rounded(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float16).astype(np.float32)


def _casts(before: str, after: str) -> list[onnx.NodeProto]:
    half = f"{after}, as float16"
    return [
        helper.make_node("Cast", [before], [half], to=TensorProto.FLOAT16),
        helper.make_node("Cast", [half], [after], to=TensorProto.FLOAT),
    ]


def find_layer(graph: onnx.GraphProto, index: int) -> SampledLayer:
    """The layer of that index in the model, by the names that torch gives to nodes.

    Raises:
        ValueError: If the graph has no such layer, or one that takes more than one map.
    """
    scope = f"/model.{index}/"
    nodes = [node for node in graph.node if node.name.startswith(scope)]
    made = {name for node in nodes for name in node.output}
    constants = {constant.name for constant in graph.initializer}
    constants |= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    takes = {name for node in nodes for name in node.input if name} - made - constants
    others = [node for node in graph.node if not node.name.startswith(scope)]
    gives = list(dict.fromkeys(name for node in others for name in node.input if name in made))
    if len(takes) != 1 or not gives:
        raise ValueError(f"layer {index} must take one map and give some, got {sorted(takes)} and {gives}")
    return SampledLayer(nodes, takes.pop(), gives)


def sampling_zigzags(model: onnx.ModelProto, index: int, shape: tuple[int, ...]) -> onnx.ModelProto:
    """The graph up to the end of a layer, which predicts its offsets from its map and samples another input with them.

    Its outputs are the map, and what is sampled.
    """
    model = copy.deepcopy(model)
    layer = find_layer(model.graph, index)
    for node in layer.nodes:
        if node.op_type != "Conv":  # the convolution of the offsets
            node.input[:] = [ZIGZAG if name == layer.takes else name for name in node.input]
    model.graph.input.append(helper.make_tensor_value_info(ZIGZAG, TensorProto.FLOAT, shape))
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    extractor = onnx.utils.Extractor(inferred)
    return extractor.extract_model(["images", ZIGZAG], [layer.takes, *layer.gives])


def zigzags(channels: int, height: int, width: int) -> Tensor:
    """A map whose values tell places: two zigzags across and two down, by turns.

    Their slope is one a pixel, so that errors of values are errors of places, and their numbers are small, so that
    float16 rounds them by a thousandth at most. The second of each pair is steep where the first one turns.

    Example:
        >>> zigzags(4, 1, 6)[0, :2, 0]
        tensor([[2., 1., 0., 1., 2., 1.],
                [1., 0., 1., 2., 1., 0.]])
    """
    across, down = ([_zigzag(size, start) for start in (0, 1)] for size in (width, height))
    maps = [*(row.expand(height, width) for row in across), *(column[:, None].expand(height, width) for column in down)]
    return torch.stack(maps * (channels // len(maps)))[None]


def _zigzag(size: int, start: int) -> Tensor:
    return ((torch.arange(start, start + size) % 4) - 2.0).abs()


def place_errors(model: onnx.ModelProto, layer: DySample, index: int, images: Tensor, half: bool = True) -> Tensor:
    """How far from its place each place is sampled, in pixels: along both sides, for every group and output pixel.

    Where a place should be follows in float64 from the map that reached the layer: what the layers before it lost is
    not counted, the layer's own rounding is, that of its offsets too.

    Returns:
        Tensor[2 * groups, scale * H, scale * W]: At most about one pixel: zigzags tell no more.
    """
    shapes = {value.name: value for value in onnx.shape_inference.infer_shapes(model).graph.value_info}
    takes = find_layer(model.graph, index).takes
    shape = tuple(size.dim_value for size in shapes[takes].type.tensor_type.shape.dim)
    cut = sampling_zigzags(model, index, shape)
    patterns = zigzags(*shape[1:])
    feeds = {"images": images.numpy(), ZIGZAG: patterns.numpy()}
    seen, *parts = (torch.from_numpy(value) for value in _run(in_half_precision(cut) if half else cut, feeds))
    sampled = torch.cat(parts, dim=1)
    exact = copy.deepcopy(layer).double().eval()
    with torch.no_grad():
        expected = dysample(patterns.double(), exact.predict_offset(seen.double()), exact.scale, exact.init)
    errors = (sampled.double() - expected).abs()[0]
    # Channels of a group, in fours; the larger error of a pair of zigzags.
    return errors.view(layer.groups, -1, 2, 2, *errors.shape[1:]).amax(dim=(1, 3)).flatten(0, 1)


def _run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    # Or pairs of casts would be taken for superfluous.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def simulate(yolo: Any, file: Path, images: Tensor, half: bool = True) -> dict[int, dict[str, float | list[int]]]:
    """The errors of the places of every DySample layer of an exported model, by the layer's index: the largest, the
    mean, the share beyond :data:`LARGEST_ERROR`, and the height and width of the map.
    """
    model = onnx.load(file)
    found: dict[int, dict[str, float | list[int]]] = {}
    for index, layer in enumerate(yolo.model.model):
        if isinstance(layer, DySample):
            errors = place_errors(model, layer, index, images, half)
            found[index] = {
                "map": [size // layer.scale for size in errors.shape[1:]],
                "largest": errors.max().item(),
                "mean": errors.mean().item(),
                "beyond": (errors > LARGEST_ERROR).double().mean().item(),
            }
    return found
