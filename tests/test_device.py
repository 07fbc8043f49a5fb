"""The operator on the device that it runs on: on the CPU always, on a GPU under ``pytest -m gpu``.

The device is the only difference, and what is compared with is computed in float64 on the CPU. No test may be skipped
where there is no GPU: it is not collected, or it fails.
"""

import copy

import pytest
import torch
from torch import nn

from tests.reference.published_dysample import DySample as Published
from tests.test_dysample import H, W, channels_last, inits, maps, moved, sampled_one_by_one, variants
from yolov10_dysample.dysample import VARIANTS, DySample, dysample

CHANNELS = 64
HALF = {torch.float16: 2e-3, torch.bfloat16: 2e-2}
half_precisions = pytest.mark.parametrize("dtype", HALF, ids=str)


@pytest.fixture(autouse=True)
def _default_dtype():
    yield
    torch.set_default_dtype(torch.float32)


def results(layer, x):
    """The output, the gradient of the map, and those of all weights, as float64 on the CPU."""
    x = x.detach().requires_grad_()
    y = layer(x)
    y.backward(maps(*y.shape, seed=9).to(y))
    return [value.detach().cpu().double() for value in (y, x.grad, *(p.grad for p in layer.parameters()))]


@variants
@channels_last
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=["f64", "f32"])
@pytest.mark.parametrize("batch", [1, 3])
def test_output_and_all_gradients_equal_the_published_code(device, variant, layout, dtype, tolerance, batch):
    torch.set_default_dtype(torch.float64)  # the published code fixes its start positions when it is made
    published = moved(Published(CHANNELS, **variant), 0.5)
    ours = DySample(CHANNELS, **variant)
    torch.set_default_dtype(torch.float32)
    ours.load_state_dict(published.state_dict())
    x = maps(batch, CHANNELS, H, W)
    expected = results(published, x)
    actual = results(ours.to(device, dtype), x.to(device, dtype).contiguous(memory_format=layout))
    for value, wanted in zip(actual, expected, strict=True):
        torch.testing.assert_close(value, wanted, rtol=tolerance, atol=tolerance * wanted.abs().max().item())


@variants
@inits
@channels_last
@pytest.mark.parametrize("grad", [False, True], ids=["inference", "training"])
def test_device_dtype_and_memory_format_in_are_those_out(device, variant, init, layout, grad):
    layer = DySample(CHANNELS, init=init, **variant).to(device)
    x = maps(2, CHANNELS, H, W).to(device, torch.float32).contiguous(memory_format=layout)
    with torch.set_grad_enabled(grad):
        y = layer(x)
    assert (y.device, y.dtype) == (x.device, x.dtype)
    assert y.is_contiguous(memory_format=layout)
    expected = nn.Upsample(scale_factor=2, mode=init)(x)  # where a fresh layer starts, but for hundredths
    torch.testing.assert_close(y, expected, rtol=0, atol=0.1)


@inits
@channels_last
@half_precisions
def test_half_precision_maps_are_sampled_where_their_offsets_say(device, init, layout, dtype):
    x = maps(2, 8, H, W).to(dtype)
    offset = maps(2, 4, 2 * H, 2 * W, seed=1, scale=2.0).to(dtype)
    y = dysample(x.to(device).contiguous(memory_format=layout), offset.to(device), init=init)
    assert y.dtype == dtype
    expected = sampled_one_by_one(x.double(), offset.double(), 2, init)
    torch.testing.assert_close(y.cpu().double(), expected, rtol=HALF[dtype], atol=HALF[dtype])


@variants
@half_precisions
def test_autocast_trains_as_float32_does(device, variant, dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, CHANNELS, 1), DySample(CHANNELS, **variant), nn.Conv2d(CHANNELS, 2, 1))
    exact = copy.deepcopy(model).double()
    x = maps(2, 3, H, W)
    exact(x).square().mean().backward()
    model.to(device)
    dtypes = []
    model[1].register_forward_hook(lambda layer, given, y: dtypes.append(y.dtype))
    with torch.autocast(device.type, dtype):
        loss = model(x.float().to(device)).float().square().mean()
    assert dtypes == [dtype]
    loss.backward()
    for actual, wanted in zip(model.parameters(), exact.parameters(), strict=True):
        error = (actual.grad.cpu().double() - wanted.grad).norm() / wanted.grad.norm().clamp(min=1e-6)
        assert actual.grad.dtype == torch.float32
        assert error < 0.1, error


@inits
def test_gradients_are_those_of_the_function(device, init):
    x = maps(2, 4, 4, 3).to(device).requires_grad_()
    # Kept off the kinks, where bilinear sampling has no derivative.
    offset = (maps(2, 4, 8, 6, seed=1).clamp(-0.9, 0.9).round(decimals=1) + 0.033).to(device).requires_grad_()
    assert torch.autograd.gradcheck(lambda *both: dysample(*both, init=init), (x, offset), fast_mode=True)


@channels_last
@pytest.mark.parametrize("extreme", [float("nan"), float("inf"), -float("inf")], ids=str)
def test_an_offset_that_is_not_finite_spoils_its_own_place_alone(device, layout, extreme):
    x = torch.ones(2, 8, H, W, device=device).contiguous(memory_format=layout)
    offset = torch.zeros(2, 4, 2 * H, 2 * W, device=device)
    offset[:, :, ::2, 1::2] = extreme
    expected = torch.ones(2, 8, 2 * H, 2 * W, device=device)
    if extreme != extreme:
        expected[:, :, ::2, 1::2] = extreme
    torch.testing.assert_close(dysample(x, offset), expected, equal_nan=True)


def test_a_layer_made_on_the_device_starts_as_one_made_on_the_cpu(device):
    torch.manual_seed(0)
    expected = DySample(CHANNELS, **VARIANTS["dysample+"])
    torch.manual_seed(0)
    with torch.device(device):
        layer = DySample(CHANNELS, **VARIANTS["dysample+"])
    for actual, wanted in zip(layer.parameters(), expected.parameters(), strict=True):
        assert actual.device.type == device.type
        assert torch.equal(actual.cpu(), wanted)
