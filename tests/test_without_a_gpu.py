"""What can be shown about a GPU without one: tensors that claim to be on one, op traces, compilers and exporters.

Nothing here runs a CUDA kernel, so that speed is not shown, and backward on a GPU only as far as its ops go.
"""

import contextlib
import copy
import os
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from ultralytics import YOLO

from tests.conftest import ROOT, run
from tests.small_models import SMALL
from yolov10_dysample.dysample import INITS, VARIANTS, DySample, dysample
from yolov10_dysample.study.operators import spread_all_offsets

CHANNELS = 32
#: B, H, W: none is like another, none is one, and batch and sides change on their own.
SIZES = ((2, 5, 6), (3, 5, 6), (2, 7, 6), (4, 8, 11))

variants = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
inits = pytest.mark.parametrize("init", INITS)
#: For what takes seconds each: every variant, and both starts with both styles and with and without dyscope.
pairs = pytest.mark.parametrize(
    ("variant", "init"),
    [
        pytest.param(variant, init, id=f"{name}-{init}")
        for (name, variant), init in zip(VARIANTS.items(), (*INITS, *reversed(INITS)), strict=True)
    ],
)
grads = pytest.mark.parametrize("grad", [False, True], ids=["inference", "training"])
half_precisions = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
fresh_compiler = pytest.mark.usefixtures("_fresh_compiler")
layouts = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])


@pytest.fixture
def _fresh_compiler():
    torch._dynamo.reset()


def maps(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer(variant, init="bilinear"):
    """A layer whose offsets are of the order of a pixel."""
    made = DySample(CHANNELS, init=init, **variant)
    with torch.no_grad():
        for seed, parameter in enumerate(made.parameters()):
            parameter.copy_(maps(*parameter.shape, seed=seed))
    return made


def on_gpu(module):
    """The module with fake parameters on a GPU; call it under a FakeTensorMode."""
    for child in module.modules():
        for name, parameter in child.named_parameters(recurse=False):
            fake = torch.empty(parameter.shape, dtype=parameter.dtype, device="cuda")
            setattr(child, name, nn.Parameter(fake))
    return module


class Trace(TorchDispatchMode):
    """The names of the ops that run, and the devices of all tensors that they make."""

    def __init__(self):
        super().__init__()
        self.ops, self.devices = set(), set()

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        out = op(*args, **(kwargs or {}))
        self.ops.add(str(op))
        self.devices |= {value.device.type for value in torch.utils._pytree.tree_leaves(out) if _is_tensor(value)}
        return out


def _is_tensor(value):
    return isinstance(value, torch.Tensor)


#: Ops that wait for the GPU, move numbers between it and the host, or give tensors of a size that depends on numbers.
STOPS = ("_local_scalar_dense", "item", "nonzero", "is_nonzero", "masked_select", "_pin_memory", "equal.", "unique")
COPIES = ("_to_copy", "aten.copy_", "lift_fresh")


def stops_in(ops, stops=(*STOPS, *COPIES)):
    return {op for op in ops if any(stop in op for stop in stops)}


def test_the_trace_sees_a_copy_and_a_wait():
    with FakeTensorMode(), Trace() as trace:
        torch.zeros(3).to("cuda")
    assert stops_in(trace.ops)
    assert trace.devices == {"cpu", "cuda"}
    with Trace() as trace:
        torch.zeros(1).item()
        torch.zeros(3).nonzero()
    assert len(stops_in(trace.ops)) == 2


@variants
@inits
@layouts
@grads
def test_on_a_gpu_all_is_made_there_and_nothing_waits_or_copies(variant, init, layout, grad):
    module = layer(variant, init)
    with FakeTensorMode(), torch.set_grad_enabled(grad):
        module = on_gpu(module)
        x = torch.empty(2, CHANNELS, 5, 6, device="cuda", memory_format=layout)
        with Trace() as trace:
            y = module(x)
    assert y.shape == (2, CHANNELS, 10, 12)
    assert y.device.type == "cuda"
    assert y.requires_grad is grad
    assert y.is_contiguous(memory_format=layout)
    assert trace.devices == {"cuda"}
    assert any("grid_sampler_2d" in op for op in trace.ops)
    assert not stops_in(trace.ops)


@variants
@inits
@layouts
@grads
def test_on_a_cpu_nothing_is_read_back_but_whether_map_and_offsets_are_finite(variant, init, layout, grad):
    module = layer(variant, init)
    x = maps(2, CHANNELS, 5, 6).contiguous(memory_format=layout)
    with torch.set_grad_enabled(grad), Trace() as trace:
        y = module(x)
        if grad:
            y.sum().backward()
    # Nobody waits there: a CPU has done what was asked before. Inference in channels_last never meets NaN that way.
    looks = set() if grad or layout == torch.contiguous_format else {"aten._local_scalar_dense.default"}
    assert set(stops_in(trace.ops, STOPS)) == looks


def test_a_fake_tensor_has_its_shape_upsampled():
    module = layer(next(iter(VARIANTS.values())))
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        x = torch.empty(2, CHANNELS, 5, 6, memory_format=torch.channels_last)
        assert module(x).shape == (2, CHANNELS, 10, 12)


@variants
@half_precisions
def test_half_precision_on_a_gpu_is_sampled_at_float32_coordinates_and_given_back(variant, dtype):
    module = layer(variant).to(dtype)
    with FakeTensorMode():
        module = on_gpu(module)
        x = torch.empty(2, CHANNELS, 5, 6, device="cuda", dtype=dtype)
        with Trace() as trace, _Grids() as grids:
            y = module(x)
    assert y.dtype == dtype
    assert grids.dtypes == [torch.float32]
    assert trace.devices == {"cuda"}
    assert not stops_in(trace.ops, STOPS)


class _Grids(TorchDispatchMode):
    """The dtypes of the coordinates that maps are sampled at."""

    def __init__(self):
        super().__init__()
        self.dtypes = []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        if "grid_sampler_2d" in str(op):
            self.dtypes.append(args[1].dtype)
        return op(*args, **(kwargs or {}))


@contextlib.contextmanager
def autocast_on_gpu(dtype):
    """What `torch.autocast("cuda")` does, which turns itself off where there is no GPU."""
    before = torch.get_autocast_dtype("cuda")
    torch.set_autocast_dtype("cuda", dtype)
    torch.set_autocast_enabled("cuda", True)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.set_autocast_dtype("cuda", before)
        torch.clear_autocast_cache()


@variants
@half_precisions
def test_autocast_on_a_gpu_gives_a_half_precision_map_for_a_half_precision_map(variant, dtype):
    before, module = nn.Conv2d(3, CHANNELS, 1), layer(variant)
    with FakeTensorMode():
        before, module = on_gpu(before), on_gpu(module)
        images = torch.empty(2, 3, 5, 6, device="cuda")
        with autocast_on_gpu(dtype), _Grids() as grids:
            x = before(images).contiguous(memory_format=torch.channels_last)
            y = module(x)
    assert x.dtype == y.dtype == dtype
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert grids.dtypes == [torch.float32]


@pytest.mark.parametrize(
    "shape", [(4, 256, 640, 640), (1, 64, 8192, 8192), (64, 512, 320, 320), (3, 8, 1, 2**24)], ids=str
)
@pytest.mark.parametrize("device", ["meta", "cuda"])
def test_maps_of_more_than_two_to_the_31_numbers_have_the_right_shape(shape, device):
    batch, channels, height, width = shape
    with FakeTensorMode():
        x = torch.empty(shape, device=device)
        offset = torch.empty(batch, 8, 2 * height, 2 * width, device=device)
        y = dysample(x, offset)
    assert y.shape == (batch, channels, 2 * height, 2 * width)
    assert y.device.type == device


@pytest.mark.parametrize("size", [640, 4096, 8192, 2**16])
@inits
def test_start_places_are_right_to_a_hundredth_of_a_pixel_at_any_width(size, init):
    x = torch.arange(size, dtype=torch.float32).expand(1, 1, 1, size)
    y = dysample(x, torch.zeros(1, 2, 2, 2 * size), init=init)
    expected = nn.Upsample(scale_factor=2, mode=init)(x)
    torch.testing.assert_close(y, expected, rtol=0, atol=max(0.01, size * 2**-23))


@pytest.mark.slow
@pairs
@grads
@fresh_compiler
def test_it_compiles_to_one_graph_for_all_sizes(variant, init, grad):
    module = layer(variant, init)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(copy.deepcopy(module), fullgraph=True, dynamic=True, backend=counter)
    with torch.set_grad_enabled(grad):
        for batch, height, width in SIZES:
            x = maps(batch, CHANNELS, height, width)
            torch.testing.assert_close(compiled(x), module(x), rtol=1e-4, atol=1e-4)
    assert counter.frame_count == 1


@pytest.mark.slow
@pytest.mark.parametrize("variant", [VARIANTS["dysample+"], VARIANTS["dysample-s"]], ids=["dysample+", "dysample-s"])
@fresh_compiler
def test_compiled_training_gives_the_gradients_of_eager_training(variant):
    module = layer(variant)
    other = copy.deepcopy(module)
    compiled = torch.compile(other, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch, height, width in SIZES[1:3]:
        x = maps(batch, CHANNELS, height, width)
        for model in (module, compiled):
            model.zero_grad()
            model(x).square().mean().backward()
        for actual, expected in zip(other.parameters(), module.parameters(), strict=True):
            torch.testing.assert_close(actual.grad, expected.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@layouts
@fresh_compiler
def test_a_compiled_layer_keeps_the_memory_format(layout):
    compiled = torch.compile(layer(VARIANTS["dysample"]), fullgraph=True, dynamic=True, backend="aot_eager")
    with torch.no_grad():
        assert compiled(maps(2, CHANNELS, 5, 6).contiguous(memory_format=layout)).is_contiguous(memory_format=layout)


LINKED = "TESTED_THROUGH_A_LINK"


def run_through_a_link(nodeid):
    """Run a test in a child process that sees no space in any path: inductor does not quote them for its compiler."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        link = Path(folder) / "environment"
        link.symlink_to(sys.prefix)
        pytest_there = (link / "bin" / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", nodeid)
        assert "1 passed" in run(*pytest_there, cwd=ROOT, env={"TMPDIR": folder, LINKED: "1"})


@pytest.mark.slow
def test_inductor_gives_eager_torchs_numbers_in_inference_and_training(request, monkeypatch):
    if " " in sys.prefix + tempfile.gettempdir() and LINKED not in os.environ:
        run_through_a_link(request.node.nodeid)
        return
    module = layer(VARIANTS["dysample+"])
    # Whether the compiler knows the vector instructions of this CPU takes half a minute to find out.
    monkeypatch.setattr("torch._inductor.config.cpp.vec_isa_ok", True)
    for training in (False, True):
        torch._dynamo.reset()
        # With sizes as symbols once: that gradients have them too is seen above, without inductor.
        compiled = torch.compile(copy.deepcopy(module), fullgraph=True, dynamic=not training)
        results = []
        for model in (module, compiled):
            x = maps(2, CHANNELS, 5, 6).requires_grad_(training)
            with torch.set_grad_enabled(training):
                y = model(x)
            if training:
                y.square().mean().backward()
            results.append((y.detach(), x.grad) if training else (y,))
        for expected, actual in zip(*results, strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pairs
def test_torch_export_gives_one_program_for_all_sizes(variant, init):
    module = layer(variant, init).eval()
    batch, height, width = (torch.export.Dim(name, min=1, max=4096) for name in ("batch", "height", "width"))
    program = torch.export.export(
        module, (maps(2, CHANNELS, 5, 6),), dynamic_shapes=({0: batch, 2: height, 3: width},), strict=True
    )
    for shape in (*SIZES, (1, 1, 1), (1, 40, 40)):
        x = maps(shape[0], CHANNELS, *shape[1:])
        torch.testing.assert_close(program.module()(x), module(x), rtol=1e-4, atol=1e-4)


@pytest.fixture
def whole_model(tmp_path):
    """A small YOLOv10 with a DySample row as it predicts, images, and its output for them."""
    file = tmp_path / "small.yaml"
    file.write_text(SMALL.format(row="DySample, [2]", head="v10Detect, [1]"))
    model = YOLO(file, verbose=False).model.eval()
    images = torch.rand(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    images = images.to(memory_format=torch.channels_last)
    spread_all_offsets(model, images, 0.5)
    with torch.no_grad():
        return model, images, model(images)[0]  # and the head has its anchors, whose making no graph can hold


@pytest.mark.slow
@torch.no_grad()
@fresh_compiler
def test_a_whole_model_compiles_without_a_graph_break(whole_model):
    model, images, expected = whole_model
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    torch.testing.assert_close(compiled(images)[0], expected, rtol=1e-4, atol=1e-3)
    assert counter.frame_count == 1


@pytest.mark.slow
@pytest.mark.parametrize("strict", [True, False], ids=["strict", "non-strict"])
@torch.no_grad()
def test_a_whole_model_is_exported_by_torch(strict, whole_model):
    model, images, expected = whole_model
    program = torch.export.export(model, (images,), strict=strict)
    torch.testing.assert_close(program.module()(images)[0], expected, rtol=1e-4, atol=1e-3)


@variants
@inits
def test_a_trace_follows_the_size_of_its_input(variant, init):
    module = layer(variant, init).eval()
    traced = torch.jit.trace(module, maps(2, CHANNELS, 5, 6))
    for shape in (*SIZES, (1, 1, 1), (1, 40, 40)):
        x = maps(shape[0], CHANNELS, *shape[1:])
        torch.testing.assert_close(traced(x), module(x), rtol=1e-4, atol=1e-4)
