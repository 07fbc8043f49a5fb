"""The offsets that are given are the layer's, at their places, and never ones that are no numbers."""

import functools
import itertools

import numpy as np
import pytest
import torch

from tests.small_models import picture, small_model
from yolov10_dysample import offsets
from yolov10_dysample.dysample import dysample


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Makes small models, see small_model."""
    return functools.partial(small_model, tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("row", ["DySample, [2, lp, 2]", "DySample, [4, pl, 2]", "DySample, [2, lp, 2, True, nearest]"])
def test_the_field_has_the_offsets_that_the_layer_samples_at(small, row):
    """x of every group before y of every group, in pixels of the layer's input."""
    model = small(row)
    layer = model.model.model[2]
    moved = torch.tensor([[0.5, -0.25], [2.0, 1.0]])  # [x or y, group]
    with torch.no_grad():
        layer.offset.weight.zero_()
        layer.offset.bias.view(2, 2, -1).copy_(moved[..., None] * 4)
    (field,) = offsets.offset_fields(model, picture(32, 64), imgsz=64)
    assert (field.i, field.scale, field.groups, field.init) == (2, layer.scale, 2, layer.init)
    assert (field.size, field.stride) == ((8, 16), 4)
    assert field.offset.shape == (2, 2, 8 * layer.scale, 16 * layer.scale)
    assert torch.equal(field.offset, moved[..., None, None].expand_as(field.offset))


def test_offsets_that_depend_on_the_image_are_those_of_this_image(small):
    model = small()
    inputs = []
    layer = model.model.eval().model[2]
    torch.nn.init.normal_(layer.offset.weight)
    image = picture(32, 64)
    (field,) = offsets.offset_fields(model, image, imgsz=64)
    model.model.model[1].register_forward_hook(lambda module, args, output: inputs.append(output))
    with torch.no_grad():
        model.model(torch.tensor(image[..., ::-1].copy()).permute(2, 0, 1)[None] / 255)
        expected = layer.predict_offset(inputs[0])[0]
    assert expected.std() > 0.01
    torch.testing.assert_close(field.offset.flatten(0, 1), expected, rtol=1e-3, atol=1e-5)


def test_the_image_is_what_the_network_saw_in_true_colours_with_its_padding(small):
    red = np.zeros((40, 64, 3), np.uint8)
    red[..., 2] = 255  # arrays are BGR, as in predict()
    (field,) = offsets.offset_fields(small(), red, imgsz=64)
    assert field.image.shape == (64, 64, 3)
    assert field.image[32, 32].tolist() == [255, 0, 0]
    assert field.image[0, 0].tolist() == [114, 114, 114]


def test_a_shift_that_is_the_same_in_every_cell_has_no_spread():
    generator = torch.Generator().manual_seed(0)
    one_cell = torch.randn(3, 4, 2, 2, generator=generator)  # another one for each image, group and sub-pixel
    found = offsets.offset_statistics(one_cell.repeat(1, 1, 5, 7), scale=2)
    assert found["spread"] == pytest.approx(0, abs=1e-12)
    assert found["largest"] == pytest.approx(torch.hypot(*one_cell.chunk(2, dim=1)).max().item())


def test_statistics_of_a_known_pattern():
    offset = torch.zeros(1, 2, 20, 20)
    offset[:, 0, :, :10], offset[:, 0, :, 10:] = 3, -3
    found = offsets.offset_statistics(offset, scale=2)
    assert found == pytest.approx({"mean": 3, "p99": 3, "largest": 3, "spread": (9 / 2) ** 0.5})  # x varies, y does not
    offset[0, 1, 0, :5] = 4  # 5 of 400 lengths
    found = offsets.offset_statistics(offset, scale=2)
    assert (found["p99"], found["largest"]) == (5, 5)
    offset[0, 1, 0, :2] = 0  # 3 of 400
    assert offsets.offset_statistics(offset, scale=2)["p99"] == 3


@pytest.mark.parametrize(("scale", "init"), list(itertools.product([2, 3, 4], ["bilinear", "nearest"])))
def test_places_are_where_the_operator_samples(scale, init):
    height, width, groups = 3, 5, 2
    row, column = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    coordinates = torch.stack((column, row)).repeat(groups, 1, 1)[None]
    generator = torch.Generator().manual_seed(0)
    offset = torch.randn(2, groups, height * scale, width * scale, generator=generator) * 2  # some leave the map
    sampled = dysample(coordinates, offset.flatten(0, 1)[None], scale, init)[0].unflatten(0, (groups, 2))
    places = offsets.sampling_places(offset, scale, init, stride=8)
    torch.testing.assert_close(places, (sampled.transpose(0, 1) + 0.5) * 8, rtol=0, atol=1e-4)


def test_a_network_without_its_yolo_is_refused(small):
    with pytest.raises(ValueError, match=r"the model must be YOLO\(\.\.\.\) .* got DetectionModel"):
        offsets.offset_fields(small().model, picture(32, 32))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_offsets_that_are_not_finite_are_refused_with_their_layer_and_number(small, value):
    model = small("DySample, [2, lp, 2]")
    model.model.model[2].offset.bias.data[0] = value  # one of 2 axes x 2 groups x 4 sub-pixels
    message = (
        r"offsets must be finite numbers, and those of .*small.yaml are not: 128 of 2048 in layer 2; "
        r"the model has diverged: train it again with a lower lr0, or take an earlier checkpoint"
    )
    with pytest.raises(ValueError, match=message):
        offsets.offset_fields(model, picture(32, 64), imgsz=64)
