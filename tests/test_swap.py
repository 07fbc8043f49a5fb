"""DySample put into models already built: what changes, what stays, and what is refused; trained weights detect the
same after the swap, and learn from there.
"""

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.nn import tasks
from ultralytics.utils import ASSETS

from yolov10_dysample import convert_rows, use_dysample
from yolov10_dysample.dysample import DySample
from yolov10_dysample.model_files import find_stock


def stock_module(name="yolov10n.yaml"):
    torch.manual_seed(1)
    return tasks.DetectionModel(name, verbose=False)


IMAGES = torch.rand(8, 3, 96, 128, generator=torch.Generator().manual_seed(5))


def calibrated(name):
    """A model whose output depends on its neck: a fresh one's does not, to 1e-7 (design note F21)."""
    model = stock_module(name)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    for module in model.model[-1].modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.weight, std=0.1)
    with torch.no_grad():
        model.train()(IMAGES)
    return model.eval()


def raw_output(model):
    """What the head predicts at every place, before it picks and sorts detections."""
    head = model.model[-1]
    head.training = True
    with torch.no_grad():
        output = model(IMAGES[:2].to(next(model.parameters()).dtype))
    head.training = False
    return output


@pytest.mark.parametrize("name", ["yolov10n.yaml", "yolo11n.yaml", "yolov8n-p2.yaml"])
def test_a_nearest_start_leaves_the_output_as_it_was_until_the_offsets_move(name):
    model = calibrated(name)
    before = raw_output(model)
    assert use_dysample(model) is model
    layers = [layer for layer in model.model if isinstance(layer, DySample)]
    assert layers
    torch.testing.assert_close(raw_output(model), before, rtol=1e-4, atol=1e-4)
    for layer in layers:
        nn.init.constant_(layer.offset.bias, 2.0)
        with pytest.raises(AssertionError, match="not close"):
            torch.testing.assert_close(raw_output(model), before, rtol=1e-2, atol=1e-2)
        nn.init.zeros_(layer.offset.bias)


@pytest.mark.parametrize("wrapped", [False, True], ids=["nn.Module", "YOLO"])
def test_layers_and_yaml_change_together_and_nothing_else(wrapped):
    owner = YOLO("yolov10n.yaml") if wrapped else stock_module()
    model = owner.model if wrapped else owner
    stock, old = copy.deepcopy(model.yaml), list(model.model)
    assert use_dysample(owner, rows=[14], style="pl", groups=8, dyscope=True, init="bilinear") is owner
    assert model.yaml == convert_rows(stock, rows=[14], style="pl", groups=8, dyscope=True)[0]
    for i, (before, now) in enumerate(zip(old, model.model, strict=True)):
        assert (now is before) == (i != 14)
    assert str(model.model[14]) == str(DySample(128, 2, "pl", 8, True))


def test_new_layers_carry_what_the_host_expects_of_a_layer():
    built = stock_module("yolov10n-dysample.yaml")
    model = stock_module()
    model.model[11].eval()
    use_dysample(model)
    for i in (11, 14):
        for name in ("i", "f", "type", "np", "in_channels"):
            assert getattr(model.model[i], name) == getattr(built.model[i], name), name
    assert model.save == built.save
    assert [model.model[i].training for i in (11, 14)] == [False, True]
    assert not model.model[11].offset.training


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_device_and_dtype_are_the_models(device, dtype):
    model = use_dysample(stock_module().to(device, dtype), dyscope=True)
    for parameter in model.model[11].parameters():
        assert (parameter.device.type, parameter.dtype) == (device, dtype)


@pytest.mark.parametrize("frozen", ["nothing", "backbone", "everything"])
def test_new_layers_are_trainable_unless_nothing_is(frozen):
    model = stock_module()
    count = {"nothing": 0, "backbone": 10, "everything": len(model.model)}[frozen]
    model.model[:count].requires_grad_(False)
    use_dysample(model)
    assert {p.requires_grad for p in model.model[11].parameters()} == {frozen != "everything"}


def test_swapping_moves_neither_the_random_numbers_nor_the_other_weights():
    model = stock_module()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    use_dysample(model, init="bilinear")
    assert torch.equal(torch.rand(3), expected)
    for name, weight in before.items():
        assert torch.equal(model.state_dict()[name], weight), name


@pytest.mark.parametrize("name", ["yolov10n.yaml", "yolov9t.yaml"])
def test_a_fused_model_can_be_swapped(name):
    model = calibrated(name).double().fuse(verbose=False)
    before = raw_output(model)
    torch.testing.assert_close(raw_output(use_dysample(model)), before, rtol=1e-9, atol=1e-9)


def test_the_model_can_be_built_again_from_its_yaml():
    model = use_dysample(stock_module(), groups=8)
    again = tasks.DetectionModel(copy.deepcopy(model.yaml), verbose=False)
    assert str(again.model[11]) == str(model.model[11])
    assert again.load_state_dict(model.state_dict())


def test_a_cached_predictor_is_dropped():
    model = YOLO("yolov10n.yaml")
    model.predictor = object()
    assert use_dysample(model).predictor is None


def test_a_model_that_upsamples_by_bilinear_is_told_what_keeps_its_output(recwarn):
    model = tasks.yaml_model_load("yolov10n.yaml")
    model["head"][0][3][2] = "bilinear"
    use_dysample(tasks.DetectionModel(model, verbose=False), init="bilinear")
    use_dysample(stock_module())
    assert not recwarn
    with pytest.warns(UserWarning, match=r'row 11 upsampled by bilinear, .* write init="bilinear" to keep the output'):
        use_dysample(tasks.DetectionModel(model, verbose=False))


def test_a_model_that_is_trained_from_its_file_is_told_how_to_train_with_dysample():
    network = tasks.WorldModel("yolov8s-world.yaml", verbose=False)
    with pytest.warns(UserWarning, match=r'to train, YOLO\("yolov8s-world-dysample.yaml"\).load') as told:
        use_dysample(network)
    assert told[0].filename == __file__
    named = tasks.WorldModel("yolov8s-world-dysample.yaml", verbose=False)
    assert sum(isinstance(layer, DySample) for layer in named.model) == 2


def test_the_interrupted_training_of_other_layers_is_not_resumed(monkeypatch, tmp_path):
    started = {}

    class Trainer:
        def __init__(self, overrides, _callbacks):
            started.update(overrides)

        def get_model(self, weights, cfg):
            started["layers"] = [type(layer) for layer in weights.model]
            raise KeyboardInterrupt

    file = tmp_path / "last.pt"
    torch.save({"model": stock_module(), "epoch": 3, "optimizer": {}, "train_args": {"data": "coco8.yaml"}}, file)
    model = use_dysample(YOLO(file))
    with pytest.raises(KeyboardInterrupt):
        model.train(resume=True, trainer=Trainer)
    assert not started["resume"]
    assert started["layers"].count(DySample) == 2


def test_a_model_without_a_checkpoint_has_the_swapped_network_as_its_own():
    model = use_dysample(YOLO("yolov10n.yaml"))
    assert model.ckpt["model"] is model.model


def test_the_activation_of_a_swapped_model_is_not_that_of_the_next_one(monkeypatch):
    def parse_as_before(d, ch, *arguments, **settings):  # as older Ultralytics did
        if "activation" in d:
            tasks.Conv.default_act = nn.ReLU()
        return parse({k: v for k, v in d.items() if k != "activation"}, ch, *arguments, **settings)

    parse, before = tasks.parse_model, tasks.Conv.default_act
    model = stock_module()
    model.yaml["activation"] = "nn.ReLU()"
    monkeypatch.setattr(tasks, "parse_model", parse_as_before)
    monkeypatch.setattr(tasks.Conv, "default_act", before)  # put back afterwards, whatever comes of it
    use_dysample(model)
    assert tasks.Conv.default_act is before


def test_a_saved_model_opens_with_its_layers_weights_and_yaml(tmp_path):
    model = use_dysample(YOLO("yolov10n.yaml"))
    nn.init.normal_(model.model.model[11].offset.weight)
    model.save(tmp_path / "swapped.pt")
    opened = YOLO(tmp_path / "swapped.pt")
    assert opened.model.yaml == model.model.yaml
    for name, weight in model.model.state_dict().items():
        assert torch.equal(opened.model.state_dict()[name], weight.half().to(weight.dtype)), name


def other_shape(model):
    model.model[3].conv = nn.Conv2d(32, 72, 3)


def other_layer(model):
    model.model[11] = nn.Identity()


def no_layers_left(model):
    model.model = model.model[:12]


def other_width(model):
    model.yaml["scales"] = {"n": [0.33, 0.27, 1024]}


def unknown_layer(model):
    model.yaml["head"][2][2] = "NoSuchLayer"


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        (None, {"rows": [12]}, ValueError, r"row 12 of yolov10n\.yaml is Concat"),
        (None, {"rows": {11: 1}}, ValueError, r"rows must be a list of row indices, got \{11: 1\}"),
        (None, {"rows": "11"}, ValueError, "rows must be a list of row indices, got '11'"),
        (
            None,
            {"groups": 5},
            ValueError,
            r"row 11 of yolov10n\.yaml: groups must .* divides in_channels \(256\), got 5",
        ),
        (None, {"groups": 256}, ValueError, r"row 14 of yolov10n\.yaml: groups must .* \(128\), got 256"),
        (None, {"style": "pp"}, ValueError, "style must be one of"),
        (None, {"init": "zeros"}, ValueError, "init must be one of"),
        (use_dysample, {}, ValueError, "no nn.Upsample row, and DySample already in rows 11, 14"),
        (
            other_shape,
            {},
            ValueError,
            r"model\.yaml does not describe this model: layer 3\.conv\.weight has shape \[72",
        ),
        (other_width, {}, ValueError, r"model\.yaml does not describe this model: layer 0"),
        (other_layer, {}, ValueError, r"row 11 of model\.yaml is nn\.Upsample, but layer 11 of the model is Identity"),
        (no_layers_left, {}, ValueError, "layer 14 of the model is missing"),
        (unknown_layer, {}, KeyError, "NoSuchLayer"),
    ],
)
def test_a_refused_swap_leaves_the_model_as_it_was(change, options, error, message):
    model = stock_module()
    if change:
        change(model)
    layers, description = list(model.model), copy.deepcopy(model.yaml)
    with pytest.raises(error, match=message):
        use_dysample(model, **options)
    assert list(model.model) == layers
    assert model.yaml == description


@pytest.mark.parametrize("thing", ["yolov10n.pt", None, nn.Linear(1, 1), nn.Sequential(nn.Upsample())], ids=str)
def test_what_is_no_model_is_refused(thing):
    with pytest.raises(TypeError, match=r"use_dysample takes YOLO\(\.\.\.\) .* got " + type(thing).__name__):
        use_dysample(thing)


# Weights that come from a stock model


@pytest.mark.parametrize("size", [*"ns", *(pytest.param(size, marks=pytest.mark.slow) for size in "mblx")])
def test_every_weight_of_a_stock_checkpoint_transfers_but_for_the_two_new_layers(size, tmp_path):
    stock = YOLO(f"yolov10{size}.yaml")
    stock.save(tmp_path / f"yolov10{size}.pt")
    weights, _ = tasks.load_checkpoint(tmp_path / f"yolov10{size}.pt")
    weights = weights.state_dict()
    model = tasks.DetectionModel(f"yolov10{size}-dysample.yaml", verbose=False)
    model.load(tasks.load_checkpoint(tmp_path / f"yolov10{size}.pt")[0])
    state = model.state_dict()
    assert all(torch.equal(state.pop(name), weight) for name, weight in weights.items())
    assert sorted(state) == [f"model.{row}.offset.{part}" for row in (11, 14) for part in ("bias", "weight")]


@pytest.fixture
def one_class(tmp_path, monkeypatch):
    """A stock yolov10n of the data set's one class, as YAML and as checkpoint, so that its head fits too."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "yolov10n.yaml").write_text(find_stock("yolov10n.yaml").read_text().replace("nc: 80", "nc: 1"))
    YOLO("yolov10n.yaml").save("stock.pt")
    return tmp_path


SHORT = {
    "epochs": 1,
    "imgsz": 64,
    "batch": 8,
    "workers": 0,
    "plots": False,
    "val": False,
    "device": "cpu",
    "deterministic": False,
}


@pytest.mark.slow
@pytest.mark.parametrize("start", ["stock.pt", "yolov10n.yaml"])
def test_training_starts_from_the_swapped_models_own_weights(start, one_class, digits):
    model = use_dysample(YOLO(start))
    nn.init.normal_(model.model.model[14].offset.weight, std=0.01)
    expected = {name: weight.clone() for name, weight in model.model.state_dict().items()}
    at_start = {}
    model.add_callback("on_pretrain_routine_end", lambda t: at_start.update(copy.deepcopy(t.model.state_dict())))
    model.train(data=str(digits), project=str(one_class), **SHORT)
    assert at_start.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(at_start[name], weight), name
    assert [type(model.model.model[i]) for i in (11, 14)] == [DySample] * 2
    assert not torch.equal(model.model.state_dict()["model.14.offset.weight"], expected["model.14.offset.weight"])


@pytest.mark.slow
def test_an_export_has_the_new_layers(one_class):
    model = use_dysample(YOLO("stock.pt"))
    file = model.export(format="torchscript", imgsz=64)
    assert "grid_sampler" in str(torch.jit.load(file).inlined_graph)


# Trained weights


def detections(model: YOLO, photograph: str) -> np.ndarray:
    """float[n, 6]: left, top, right, bottom in pixels, score, class; highest score first."""
    (result,) = model.predict(ASSETS / photograph, verbose=False)
    return result.boxes.data.cpu().numpy()


def same_detections(before: np.ndarray, after: np.ndarray) -> bool:
    """Boxes within 0.01 px, scores within 1e-4, and the same classes in the same order."""
    return before.shape == after.shape and bool((np.abs(before - after) <= [0.01] * 4 + [1e-4, 0]).all())


# The same weights with another start move their boxes: a comparison that could not see that would show nothing.
@pytest.mark.slow
@pytest.mark.parametrize("photograph", ["bus.jpg", "zidane.jpg"])
@pytest.mark.parametrize(("init", "same"), [("nearest", True), ("bilinear", False)])
def test_swapped_coco_weights_find_the_same_only_if_dysample_starts_as_nearest(stock, photograph, init, same):
    model = YOLO(stock)
    before = detections(model, photograph)
    assert len(before) >= 2
    use_dysample(model, init=init)
    assert same_detections(before, detections(model, photograph)) is same


SCRIPT = """
import json, sys
from ultralytics import YOLO
from yolov10_dysample import use_dysample

data, weights, folder = sys.argv[1:]
train = dict(data=data, imgsz=128, workers=0, plots=False, val=False, deterministic=False, project=folder)

def score(model):
    box = model.val(data=data, imgsz=128, workers=0, plots=False).box
    return [box.map50, box.map]

def swapped(init):
    return use_dysample(YOLO(weights), init=init)

found = {"stock": score(YOLO(weights)), "nearest": score(swapped("nearest")), "bilinear": score(swapped("bilinear"))}
model = swapped("nearest")
model.save(f"{folder}/swapped.pt")
found["saved"] = score(YOLO(f"{folder}/swapped.pt"))
model.train(epochs=2, nbs=2, warmup_epochs=0, name="tuned", **train)
tuned = YOLO(f"{folder}/tuned/weights/last.pt").model.model
found["learnt"] = [float(tuned[i].offset.weight.abs().max()) for i in (11, 14)]
found["init"] = [tuned[i].init for i in (11, 14)]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(warm_shell, stock, photographs, tmp_path_factory):
    """What the script above found."""
    folder = tmp_path_factory.mktemp("tuned")
    (folder / "script.py").write_text(SCRIPT)
    output = warm_shell(f"python script.py '{photographs}' '{stock}' '{folder}'", cwd=folder)
    return json.loads(output.splitlines()[-1])


@pytest.mark.slow
def test_map_is_equal_to_four_decimals_before_and_after_the_swap(found):
    assert found["stock"][0] > 0.5, "a model that detects nothing would prove nothing"
    assert found["nearest"] == pytest.approx(found["stock"], abs=5e-5)
    assert found["saved"] == pytest.approx(found["stock"], abs=5e-5)
    assert found["bilinear"] != pytest.approx(found["stock"], abs=5e-5), "this test cannot tell upsamplings apart"


@pytest.mark.slow
def test_the_offsets_learn_from_there(found):
    assert found["init"] == ["nearest", "nearest"]
    assert min(found["learnt"]) > 1e-4
