"""The operator and the layer: exact, in every dtype and memory format, with errors that say what to write instead."""

import copy
import inspect
import itertools
import math
import pickle
import re
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from tests.conftest import run
from tests.reference.published_dysample import DySample as Published
from yolov10_dysample.dysample import INITS, VARIANTS, DySample, dysample

# Unequal on purpose: with B, C, H and W all different, swapped axes cannot pass.
H, W = 5, 3
CHANNELS = 96
SCALES = (2, 3, 4)


@pytest.fixture(autouse=True)
def _default_dtype():
    yield
    torch.set_default_dtype(torch.float32)


variants = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
inits = pytest.mark.parametrize("init", INITS)
channels_last = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])


def maps(*shape, dtype=torch.float64, seed=0, scale=1.0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)) * scale


def moved(layer, amount=1.0):
    """The layer with offsets that matter: a fresh layer's are of the order of a thousandth of a pixel."""
    with torch.no_grad():
        for seed, parameter in enumerate(layer.parameters()):
            parameter.copy_(maps(*parameter.shape, seed=seed, scale=amount))
    return layer


def sampled_one_by_one(x, offset, scale, init):
    """The definition, one output number at a time."""
    batch, channels, height, width = x.shape
    groups = offset.shape[1] // 2
    out = torch.empty(batch, channels, height * scale, width * scale, dtype=x.dtype)

    def place(i, moved_by, size):
        start = i // scale if init == "nearest" else (i + 0.5) / scale - 0.5
        return min(max(start + moved_by, 0.0), size - 1.0)

    for b, c, i, j in itertools.product(*map(range, out.shape)):
        group = c // (channels // groups)
        px = place(j, offset[b, group, i, j].item(), width)
        py = place(i, offset[b, groups + group, i, j].item(), height)
        left, top = min(int(px), width - 1), min(int(py), height - 1)
        right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
        fx, fy = px - left, py - top
        out[b, c, i, j] = (x[b, c, top, left] * (1 - fx) + x[b, c, top, right] * fx) * (1 - fy) + (
            x[b, c, bottom, left] * (1 - fx) + x[b, c, bottom, right] * fx
        ) * fy
    return out


@inits
@channels_last
@pytest.mark.parametrize("shape", [(1, 4, 5, 3), (3, 6, 1, 4), (2, 2, 3, 1), (1, 8, 1, 1)], ids=str)
@pytest.mark.parametrize("scale", [2, 3])
def test_every_output_number_is_sampled_where_its_offset_says(shape, scale, init, layout):
    batch, _, height, width = shape
    x = maps(*shape).contiguous(memory_format=layout)
    offset = maps(batch, 4, height * scale, width * scale, seed=1, scale=2.0)
    torch.testing.assert_close(dysample(x, offset, scale, init), sampled_one_by_one(x, offset, scale, init))


@inits
@channels_last
@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_zero_offsets_are_torchs_own_interpolation(scale, init, layout):
    x = maps(2, 8, H, W).contiguous(memory_format=layout)
    expected = nn.Upsample(scale_factor=scale, mode=init)(x)
    torch.testing.assert_close(
        dysample(x, torch.zeros(2, 4, H * scale, W * scale, dtype=x.dtype), scale, init), expected
    )


@variants
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("amount", [0.001, 1.0, 30.0], ids=["fresh", "trained", "far outside"])
def test_output_and_all_gradients_equal_the_published_code(variant, scale, batch, amount):
    channels = 16 * scale**2
    torch.set_default_dtype(torch.float64)  # the published code fixes its start positions when it is made
    published = moved(Published(channels, scale, **variant), amount)
    ours = DySample(channels, scale, **variant)
    ours.load_state_dict(published.state_dict())

    results = []
    for layer in (published, ours):
        x = maps(batch, channels, H, W).requires_grad_()
        y = layer(x)
        y.backward(maps(*y.shape, seed=9))
        results.append([y.detach(), x.grad, *(parameter.grad for parameter in layer.parameters())])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_torch_func_may_call_it_with_plain_tensors(memory_format):
    layer, x = DySample(64).eval(), torch.rand(1, 64, 8, 8).to(memory_format=memory_format)
    plain = {name: value.detach() + 0.01 for name, value in layer.named_parameters()}
    with torch.no_grad():
        found = torch.func.functional_call(layer, plain, (x,))
        layer.load_state_dict(plain)
        torch.testing.assert_close(found, layer(x), rtol=0, atol=0)


def test_published_code_fails_on_channels_last_and_ours_keeps_it():
    x = maps(1, 16, H, W, dtype=torch.float32).contiguous(memory_format=torch.channels_last)
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        Published(16)(x)
    assert DySample(16)(x).is_contiguous(memory_format=torch.channels_last)


@variants
@pytest.mark.parametrize("grad", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("shape", [(1, CHANNELS, H, W), (3, CHANNELS, 4, 7), (2, CHANNELS, 1, 2)], ids=str)
def test_memory_format_in_is_memory_format_out_with_the_same_numbers(variant, grad, shape):
    layer = moved(DySample(CHANNELS, **variant), 0.3)
    x = maps(*shape, dtype=torch.float32)
    with torch.set_grad_enabled(grad):
        y = layer(x)
        z = layer(x.contiguous(memory_format=torch.channels_last))
    assert y.is_contiguous()
    assert z.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(z, y, rtol=1e-4, atol=1e-5)


@inits
def test_gradients_are_those_of_the_function(init):
    x = maps(2, 4, 4, 3).requires_grad_()
    # Kept off the kinks, where bilinear sampling has no derivative.
    offset = maps(2, 4, 8, 6, seed=1).clamp(-0.9, 0.9).round(decimals=1).add(0.033).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: dysample(a, b, 2, init), (x, offset), fast_mode=True)


@pytest.mark.skipif(sys.platform != "linux", reason="a file of 8 GB takes no room there")
def test_a_map_whose_rows_an_int32_cannot_number_is_sampled_by_grid_sample(tmp_path):
    file = tmp_path / "map"
    numbers = torch.from_file(str(file), shared=True, size=2**31, dtype=torch.float32)  # without a block on the disk
    file.unlink()
    x = numbers.view(1, 2**12, 2**12, 2**7).permute(0, 3, 1, 2)
    suits = sys.modules[DySample.__module__]._suits_rows
    assert suits(x[:, :, : 2**11])
    assert not suits(x)


def test_an_empty_batch_gives_an_empty_batch():
    assert DySample(16)(torch.empty(0, 16, H, W)).shape == (0, 16, 2 * H, 2 * W)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
        lambda x: F.pad(x, (1, 1, 1, 1))[:, :, 1:-1, 1:-1],
        lambda x: x.repeat_interleave(2, 1)[:, ::2],
        lambda x: x[:, :1].expand_as(x),
    ],
    ids=["transposed", "cropped", "strided channels", "expanded"],
)
@pytest.mark.parametrize("style", ["lp", "pl"])
def test_any_strides_give_the_numbers_of_a_contiguous_map(view, style):
    layer = moved(DySample(16, style=style), 0.3).eval()
    x = view(maps(2, 16, H, W, dtype=torch.float32))
    with torch.no_grad():
        torch.testing.assert_close(layer(x), layer(x.contiguous()), rtol=1e-4, atol=1e-5)


# Relative to float64. The input's own rounding is bounded by its epsilon; the coordinates never add to it.
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)], ids=str
)
@channels_last
def test_half_precision_maps_are_sampled_at_float32_coordinates(dtype, tolerance, layout):
    width = 160  # float16 coordinates are 1/8 of a pixel apart here, bfloat16 ones a whole pixel
    x = torch.linspace(0, 1, width, dtype=dtype).expand(1, 4, 2, width).contiguous(memory_format=layout)
    offset = torch.full((1, 2, 4, 2 * width), 0.25, dtype=dtype)
    expected = dysample(x.double(), offset.double())
    actual = dysample(x, offset)
    assert actual.dtype == dtype
    assert actual.is_contiguous(memory_format=layout)
    torch.testing.assert_close(actual.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@variants
def test_a_half_precision_model_gives_half_precision_maps(dtype, variant):
    layer = DySample(CHANNELS, **variant)
    x = maps(1, CHANNELS, H, W, dtype=torch.float32)
    y = copy.deepcopy(layer).to(dtype)(x.to(dtype))
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), layer(x), rtol=0.02, atol=0.02)


def test_autocast_keeps_the_maps_dtype_and_trains():
    layer = DySample(16)
    x = maps(1, 16, H, W, dtype=torch.float32).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert layer.offset.weight.grad.isfinite().all()


@pytest.mark.parametrize("style", ["lp", "pl"])
@pytest.mark.parametrize("dyscope", [False, True])
def test_nearest_start_is_nn_upsample_and_still_learns(style, dyscope):
    layer = DySample(16, style=style, dyscope=dyscope, init="nearest")
    x = maps(2, 16, H, W, dtype=torch.float32)
    y = layer(x)
    torch.testing.assert_close(y, nn.Upsample(scale_factor=2)(x), rtol=1e-5, atol=1e-5)
    y.square().sum().backward()
    assert layer.offset.weight.grad.abs().max() > 0


def test_at_the_border_an_offset_has_no_gradient_from_the_zeros_beyond():
    # A nearest start lies exactly on the border pixels' centres, where rounding decides which side is looked at.
    for width in range(1, 200):
        x = torch.ones(1, 1, 1, width)
        offset = torch.zeros(1, 2, 2, 2 * width, requires_grad=True)
        dysample(x, offset, init="nearest").sum().backward()
        assert offset.grad.abs().max() <= 1e-4 * width, width


def test_a_fresh_bilinear_layer_is_bilinear_but_for_hundredths():
    x = maps(1, 64, 8, 9, dtype=torch.float32)
    difference = (DySample(64)(x) - F.interpolate(x, scale_factor=2, mode="bilinear")).abs()
    assert 0 < difference.max() < 0.05


def test_making_a_layer_takes_nothing_from_the_global_generator():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    first, second = DySample(64), DySample(64)
    torch.testing.assert_close(torch.rand(4), expected, rtol=0, atol=0)
    torch.manual_seed(3)
    torch.testing.assert_close(DySample(64).offset.weight, first.offset.weight, rtol=0, atol=0)
    torch.testing.assert_close(second.offset.weight, first.offset.weight, rtol=0, atol=0)
    torch.rand(1)
    assert not torch.equal(DySample(64).offset.weight, first.offset.weight)


@pytest.mark.slow
def test_making_a_layer_loads_no_symbolic_algebra(python, tmp_path):
    # Half a second and 40 MB, which torch's skip_init() and meta tensors cost.
    made = (
        "from yolov10_dysample import DySample; DySample(64, dyscope=True); import sys; print('sympy' in sys.modules)"
    )
    assert run(python, "-c", made, cwd=tmp_path) == "False\n"


def test_offset_weights_are_drawn_as_published():
    weight = DySample(512, groups=8).offset.weight
    assert weight.std().item() == pytest.approx(0.001, rel=0.05)
    assert abs(weight.mean().item()) < 1e-4


def test_it_can_be_made_on_the_meta_device():
    with torch.device("meta"):
        layer = DySample(64, dyscope=True)
    assert layer.offset.weight.is_meta
    assert layer(torch.empty(1, 64, 4, 4, device="meta")).shape == (1, 64, 8, 8)


#: Every setting of a layer, with a value that is not its default.
SETTINGS = {"in_channels": 36, "scale": 3, "style": "pl", "groups": 2, "dyscope": True, "init": "nearest"}
#: What only an exporter sets, for one export: no setting, but no copy loses it.
EXPORTERS_OWN = {"traced_form": "gather"}


def settings_of(layer):
    return {name: getattr(layer, name) for name in SETTINGS}


def read_by_forward(layer, x):
    """The names of what forward reads from the layer, but for what every nn.Module has, methods and weights."""
    names = set()

    class Watched(type(layer)):
        def __getattribute__(self, name):
            value = super().__getattribute__(name)  # not for weights, which nn.Module finds otherwise
            if not callable(value):
                names.add(name)
            return value

    layer.__class__ = Watched
    in_eager_inference(layer, x)
    in_a_trace(layer, x)
    return {name for name in names if name not in vars(nn.Module()) and not hasattr(nn.Module, name)}


def test_forward_reads_nothing_from_a_layer_that_its_row_cannot_say():
    defaults = inspect.signature(DySample).parameters
    assert set(defaults) == set(SETTINGS)
    assert not any(defaults[name].default == value for name, value in SETTINGS.items())
    assert set(vars(DySample(**SETTINGS))) - set(vars(nn.Module())) == set(SETTINGS)
    read = set()
    for variant, init in itertools.product(VARIANTS.values(), INITS):
        layer = DySample(16, init=init, **variant).eval()
        read |= read_by_forward(layer, maps(1, 16, H, W, dtype=torch.float32))
    assert {"scale", "init", "traced_form"} < read
    assert read <= SETTINGS.keys() | EXPORTERS_OWN.keys()


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("of", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))], ids=["copy", "pickle"])
def test_every_setting_survives_copying_and_pickling_and_is_shown(setting, of):
    layer = moved(DySample(**{"in_channels": 36, setting: SETTINGS[setting]}).double())
    other = of(layer)
    assert settings_of(other) == settings_of(layer)
    assert getattr(other, setting) == SETTINGS[setting]
    x = maps(1, 36, H, W)
    torch.testing.assert_close(other(x), layer(x), rtol=0, atol=0)
    shown = repr(SETTINGS[setting]) if setting == "in_channels" else f"{setting}={SETTINGS[setting]!r}"
    assert shown in re.split(r",\s*", layer.extra_repr())


@pytest.mark.parametrize("of", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))], ids=["copy", "pickle"])
def test_what_an_exporter_sets_survives_copying_and_pickling_and_is_not_shown(of):
    layer = DySample(16)
    shown = str(layer)
    vars(layer).update(EXPORTERS_OWN)
    assert {name: getattr(of(layer), name) for name in EXPORTERS_OWN} == EXPORTERS_OWN
    assert str(layer) == shown


def test_its_repr_says_how_it_was_made():
    assert (
        str(DySample(16, 2, "pl", 4, True, "nearest"))
        .replace("\n", " ")
        .startswith("DySample(   16, scale=2, style='pl', groups=4, dyscope=True, init='nearest'")
    )


def test_the_state_dict_has_the_published_names_and_nothing_else():
    assert set(DySample(16, dyscope=True).state_dict()) == {"offset.weight", "offset.bias", "scope.weight"}


def test_a_published_start_position_is_refused_by_a_nearest_layer():
    with pytest.raises(RuntimeError, match=r"published bilinear start.*init='bilinear'"):
        DySample(16, init="nearest").load_state_dict(Published(16).state_dict())


@pytest.mark.parametrize(("bias", "refused"), [(0.0, False), (0.1, True)])
def test_an_early_published_scope_bias_is_dropped_only_if_it_is_zero(bias, refused):
    state = {**Published(16, dyscope=True).state_dict(), "scope.bias": torch.full((32,), bias)}
    layer = DySample(16, dyscope=True)
    if refused:
        with pytest.raises(RuntimeError, match=r"scope\.bias.*retraining"):
            layer.load_state_dict(state)
    else:
        layer.load_state_dict(state)


def test_a_fresh_scope_is_half_of_what_it_may_be_wherever_it_looks():
    layer = DySample(16, dyscope=True)
    assert torch.equal(layer.scope(maps(1, 16, H, W, dtype=torch.float32)).sigmoid(), torch.full((1, 32, H, W), 0.5))


@pytest.mark.parametrize("extreme", [math.inf, -math.inf, math.nan, 1e30, -1e30], ids=str)
@channels_last
def test_no_offset_reads_outside_the_map_and_only_nan_gives_nan(extreme, layout):
    x = torch.ones(2, 8, H, W).contiguous(memory_format=layout)
    offset = torch.zeros(2, 4, 2 * H, 2 * W)
    offset[:, :, ::2, 1::2] = extreme
    expected = torch.ones(2, 8, 2 * H, 2 * W)
    if math.isnan(extreme):
        expected[:, :, ::2, 1::2] = math.nan
    torch.testing.assert_close(dysample(x, offset), expected, equal_nan=True)


def in_eager_inference(layer, x):
    with torch.no_grad():
        return layer(x)


def in_channels_last_inference(layer, x):
    return in_eager_inference(layer, x.contiguous(memory_format=torch.channels_last))


def in_training(layer, x):
    return layer(x.clone().requires_grad_()).detach()


def in_channels_last_training(layer, x):
    return in_training(layer, x.contiguous(memory_format=torch.channels_last))


def in_a_trace(layer, x):
    return in_eager_inference(torch.jit.trace(layer, torch.ones_like(x)), x)


def in_a_trace_of_gathers(layer, x):
    layer.traced_form = "gather"
    return in_a_trace(layer, x)


def in_a_trace_of_gathers_for_x2paddle(layer, x):
    layer.traced_form = "x2paddle_gather"
    return in_a_trace(layer, x)


PROGRAMS = {}


def in_an_exported_program(layer, x):
    """Layers of the same settings share a program, which takes a second to export, and not their weights."""
    key = (str(layer), layer.training, x.shape)
    if key not in PROGRAMS:
        PROGRAMS[key] = torch.export.export(layer, (torch.ones_like(x),)).module()
    PROGRAMS[key].load_state_dict(layer.state_dict())
    return in_eager_inference(PROGRAMS[key], x)


LIKE_GRID_SAMPLE = [
    in_eager_inference,
    in_channels_last_inference,
    in_training,
    in_channels_last_training,
    in_a_trace,
    pytest.param(in_an_exported_program, marks=pytest.mark.slow),
]
every_path = pytest.mark.parametrize(
    "path", [*LIKE_GRID_SAMPLE, in_a_trace_of_gathers, in_a_trace_of_gathers_for_x2paddle]
)
# At the border gathers read its pixels alone; grid_sample reads the next ones too, with no weight, and 0 * NaN is NaN.
every_path_that_reads_four_pixels = pytest.mark.parametrize("path", LIKE_GRID_SAMPLE)


@every_path
@variants
@inits
@pytest.mark.parametrize("extreme", [math.nan, math.inf, -math.inf], ids=str)
def test_a_group_whose_offset_has_diverged_is_nan_and_at_infinity_the_border(path, variant, init, extreme):
    layer = DySample(CHANNELS, init=init, **variant).eval()
    of_group = CHANNELS // layer.groups
    x = torch.zeros(2, CHANNELS, H, W)
    with torch.no_grad():
        layer.offset.weight.zero_()
        # The second group horizontally, the third vertically: the published order is x and y, then groups, then, for
        # "lp", sub-pixels. In both, one column or row has another number, so that the border is known from the middle.
        for axis, group in enumerate((1, 2)):
            layer.offset.bias.view(2, layer.groups, -1)[axis, group] = extreme
            x[:, group * of_group : (group + 1) * of_group].select(3 - axis, 0 if extreme < 0 else -1).fill_(1.0)
    x[:, :of_group] = x[:, -of_group:] = maps(2, of_group, H, W, dtype=torch.float32)
    y = path(layer, x)
    diverged = y[:, of_group : 3 * of_group]
    torch.testing.assert_close(
        diverged, torch.full_like(diverged, math.nan if math.isnan(extreme) else 1.0), equal_nan=True
    )
    expected = F.interpolate(x, scale_factor=2, mode=init)
    for others in (slice(of_group), slice(3 * of_group, None)):
        torch.testing.assert_close(y[:, others], expected[:, others])


@inits
@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("axis", [2, 3], ids=["down a column", "along a row"])
# Zero, quarter and whole offsets put places onto the very centres of pixels, where a neighbour's weight is zero or, by
# rounding, almost; infinite ones put them onto the border.
@pytest.mark.parametrize("moved_by", [0.0, 0.25, 1 / 3, 1.0, -1.0, math.inf, -math.inf])
@pytest.mark.parametrize("spoilt", [math.nan, math.inf], ids=str)
def test_a_pixel_that_is_not_finite_spoils_the_same_places_in_both_memory_formats(scale, init, axis, moved_by, spoilt):
    for size in (*range(1, 18), 31, 32, 33, 49, 80):  # around the widths that vector instructions have
        x = torch.rand(size, 4, 2, size, generator=torch.Generator().manual_seed(0))
        pixels = torch.arange(size)
        x[pixels, 1, 1, pixels] = spoilt  # another pixel in every image
        x = x if axis == 3 else x.transpose(2, 3).contiguous()
        offset = torch.full((size, 2, scale * x.shape[2], scale * x.shape[3]), moved_by)
        with torch.no_grad():
            expected = dysample(x, offset, scale, init)
            actual = dysample(x.contiguous(memory_format=torch.channels_last), offset, scale, init)
        assert torch.equal(actual.isfinite(), expected.isfinite()), size


@every_path_that_reads_four_pixels
@variants
def test_a_nan_pixel_spoils_the_same_places_of_a_layer_on_every_path(path, variant):
    layer = moved(DySample(CHANNELS, **variant), 0.3).eval()
    x = maps(2, CHANNELS, H, W, dtype=torch.float32)
    x[1, 40, 2, 1] = math.nan
    y = path(layer, x)
    expected = in_eager_inference(layer, x)
    assert not expected[0].isnan().any()
    assert 0 < expected[1].isnan().sum() < expected[1].numel()
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5, equal_nan=True)


class Doubling(nn.Conv2d):
    """What an adapter or a quantiser may put in a convolution's place: more than weights and a bias."""

    def forward(self, x):
        return 2 * super().forward(x)


@every_path
@variants
def test_a_convolution_that_somebody_replaced_or_hooked_is_called_on_every_path(path, variant):
    layer = moved(DySample(CHANNELS, **variant), 0.3).eval()
    x = maps(2, CHANNELS, H, W, dtype=torch.float32)
    with torch.no_grad():
        layer.offset.weight.mul_(2)
        layer.offset.bias.mul_(2)
        expected = in_eager_inference(layer, x)
        layer.offset.weight.div_(2)
        layer.offset.bias.div_(2)
    replaced = Doubling(layer.offset.in_channels, layer.offset.out_channels, 1)
    replaced.load_state_dict(layer.offset.state_dict())
    if path is not in_an_exported_program:  # which is exported once for layers of the same settings
        hook = layer.offset.register_forward_hook(lambda module, inputs, output: 2 * output)
        torch.testing.assert_close(path(layer, x), expected, rtol=1e-4, atol=1e-5)
        hook.remove()
        own = layer.offset.forward
        layer.offset.forward = lambda x: 2 * own(x)
        torch.testing.assert_close(path(layer, x), expected, rtol=1e-4, atol=1e-5)
        del layer.offset.forward
        with register_module_forward_hook(lambda module, _, output: 2 * output if module is layer.offset else None):
            torch.testing.assert_close(path(layer, x), expected, rtol=1e-4, atol=1e-5)
    layer.offset = replaced.eval()
    torch.testing.assert_close(path(layer, x), expected, rtol=1e-4, atol=1e-5)


class RoundingToHalf(TorchDispatchMode):
    """Rounds every number that is computed to float16, as an engine of half precision may."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        def rounded(value):
            is_float = isinstance(value, torch.Tensor) and value.is_floating_point()
            return value.half().to(value.dtype) if is_float else value

        return tree_map(rounded, func(*args, **(kwargs or {})))


@channels_last
@pytest.mark.parametrize("default", [("dtype", torch.float64), ("dtype", torch.bfloat16), ("device", "meta")])
def test_what_torch_makes_tensors_of_by_default_changes_nothing(layout, default):
    """As a notebook may have it: a model on the CPU, where tensors are made on a GPU or in double precision."""
    layer = moved(DySample(CHANNELS), 0.3).eval()
    x = maps(2, CHANNELS, H, W, dtype=torch.float32).contiguous(memory_format=layout)
    with torch.no_grad():
        expected = layer(x)
        name, value = default
        getattr(torch, f"set_default_{name}")(value)
        try:
            y = layer(x)
        finally:
            torch.set_default_device(None)
    assert torch.equal(y, expected)


@variants
def test_autocast_on_a_cpu_rounds_no_place_in_either_memory_format(variant):
    layer = DySample(CHANNELS, **variant).eval()
    x = maps(2, CHANNELS, H, W, dtype=torch.float32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = dysample(x, layer.predict_offset(x))
        for layout in (torch.contiguous_format, torch.channels_last):
            torch.testing.assert_close(layer(x.contiguous(memory_format=layout)), expected, rtol=1e-6, atol=1e-6)


def test_vmap_gives_what_one_call_for_each_map_gives():
    layer = moved(DySample(CHANNELS), 0.3).eval()
    x = maps(6, CHANNELS, H, W, dtype=torch.float32).unflatten(0, (3, 2))
    with torch.no_grad():
        torch.testing.assert_close(torch.vmap(layer)(x), torch.stack([layer(one) for one in x]))


@inits
@pytest.mark.parametrize("size", [40, 80, 160])
def test_gathers_keep_every_place_to_a_hundredth_of_a_pixel_where_all_is_rounded_to_half_precision(size, init):
    layer = DySample(8, groups=2, init=init).eval()
    with torch.no_grad():
        layer.offset.weight.zero_()
        layer.offset.bias.uniform_(-8, 8, generator=torch.Generator().manual_seed(0))  # up to two pixels
    # Zigzags with a slope of one a pixel, so that errors of values are errors of places; their numbers are small.
    zigzag = ((torch.arange(size) % 4) - 2.0).abs()
    across, down = zigzag.expand(size, size), zigzag.view(-1, 1).expand(size, size)
    x = torch.stack([across, down] * 4)[None]
    expected = in_eager_inference(layer, x)

    def largest_error(form):
        layer.traced_form = form
        traced = torch.jit.trace(layer, x)
        # Optimising a trace compares its constants, which is no computing.
        with torch.no_grad(), torch.jit.optimized_execution(False), RoundingToHalf():
            return (traced(x) - expected).abs().max().item()

    assert largest_error("gather") < 0.01
    assert largest_error("grid_sample") > 0.01, "this test cannot tell a form that rounds places"


#: What X2Paddle 1.6 converts of what a trace may hold: by its op mapper, and by exports that ran (results/formats.md).
X2PADDLE_OPS = """
    Int ScalarImplicit _convolution add arange cat chunk clamp div expand flatten floor_divide index lt max min mul
    permute pixel_shuffle reshape sigmoid size slice split sub to type_as unsqueeze view
"""


@variants
def test_a_trace_for_x2paddle_holds_no_op_that_it_cannot_convert(variant):
    layer = DySample(CHANNELS, **variant).eval()  # init="nearest" has a floor too, of constants, which it can
    layer.traced_form = "x2paddle_gather"
    graph = torch.jit.trace(layer, torch.zeros(1, CHANNELS, H, W)).inlined_graph
    kinds = {node.kind().removeprefix("aten::") for node in graph.nodes() if node.kind().startswith("aten::")}
    assert not kinds - set(X2PADDLE_OPS.split())


X, OFFSET = torch.zeros(1, 16, 4, 3), torch.zeros(1, 8, 8, 6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: DySample(0), "in_channels must be a whole number of at least 1, got 0"),
        (lambda: DySample(16.0), "in_channels must be a whole number"),
        (lambda: DySample([16]), "in_channels must be a whole number"),
        (lambda: DySample(16, 1), "scale must be a whole number from 2 to 8 .*got 1"),
        (lambda: DySample(16, 9), "scale must be .* got 9"),
        (lambda: DySample(16, -2), "scale must be .* got -2"),
        (lambda: DySample(16, 2.0), r"scale must be .* got 2\.0"),
        (lambda: DySample(16, True), "scale must be .* got True"),
        (lambda: DySample(16, "2"), "scale must be .* got '2'"),
        (lambda: DySample(16, 2, "lpp"), "style must be one of 'lp', 'pl', got 'lpp'"),
        (lambda: DySample(16, 2, ["lp"]), r"style must be one of 'lp', 'pl', got \['lp'\]"),
        (lambda: DySample(16, groups=3), r"divides in_channels \(16\), got 3; 2 would do"),
        (lambda: DySample(16, groups=0), "groups must be .* got 0"),
        (lambda: DySample(16, groups=True), "groups must be .* got True"),
        (lambda: DySample(2, groups=4), r"divides in_channels \(2\), got 4; 2 would do"),
        (lambda: DySample(18, 2, "pl", 2), r"divisible by scale\*\*2 = 4, got 18; use style 'lp'"),
        (lambda: DySample(16, dyscope=1), "dyscope must be True or False, got 1"),
        (lambda: DySample(16, init="bicubic"), "init must be one of 'bilinear', 'nearest', got 'bicubic'"),
        (lambda: dysample(X[0], OFFSET), r"x must be a floating-point map \[B, C, H, W\], got .* \[16, 4, 3\]"),
        (lambda: dysample(X.int(), OFFSET), r"x must be a floating-point map .*got torch\.int32"),
        (lambda: dysample(X[:, :, :0], OFFSET), "at least one row and one column, got H x W = 0 x 3"),
        (lambda: dysample(X, OFFSET.cfloat()), "offset must be floating-point .* on cpu, got torch.complex64 on cpu"),
        (lambda: dysample(X, OFFSET.to("meta")), "offset must be .* on cpu, got torch.float32 on meta"),
        (lambda: dysample(X, OFFSET[..., :-1]), r"\[1, 2 \* groups, 8, 6\].*got \[1, 8, 8, 5\]"),
        (lambda: dysample(X, OFFSET, 3), r"\[1, 2 \* groups, 12, 9\]"),
        (lambda: dysample(X, OFFSET[:, :7]), "got 7"),
        (lambda: dysample(X, OFFSET[:, :6]), "divisor of x's 16 channels, got 6"),
        (lambda: dysample(X, OFFSET[:, :0]), "got 0"),
        (lambda: dysample(X, OFFSET, init="area"), "init must be one of .* got 'area'"),
    ],
)
def test_a_wrong_argument_is_refused_with_rule_and_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@variants
@pytest.mark.parametrize("method", [DySample.forward, DySample.predict_offset], ids=["forward", "predict_offset"])
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X[:, :8], r"x must have in_channels = 16 channels, got 8 in shape \[1, 8, 4, 3\]"),
        (X.repeat(1, 2, 1, 1), r"x must have in_channels = 16 channels, got 32 in shape \[1, 32, 4, 3\]"),
        (X[0], r"x must be a floating-point map \[B, C, H, W\], got torch.float32 of shape \[16, 4, 3\]"),
        (X[None], r"x must be a floating-point map \[B, C, H, W\], got torch.float32 of shape \[1, 1, 16, 4, 3\]"),
        (X.int(), r"x must be a floating-point map \[B, C, H, W\], got torch.int32 of shape \[1, 16, 4, 3\]"),
        (X.bool(), r"x must be a floating-point map .*got torch.bool"),
        (X[:, :, :0], "at least one row and one column, got H x W = 0 x 3"),
    ],
    ids=["narrower", "wider", "3-D", "5-D", "integers", "booleans", "no rows"],
)
def test_a_layer_refuses_a_map_that_is_not_its_own(variant, method, x, message):
    layer = DySample(16, **variant)
    with pytest.raises(ValueError, match=message):
        method(layer, x)
