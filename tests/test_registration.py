"""What registration does to Ultralytics, and that it does nothing else."""

import ast
import copy
import functools
import threading

import pytest
import torch
import ultralytics
import yaml
from torch import nn
from ultralytics.nn import tasks
from ultralytics.utils import ROOT as HOST

from tests.conftest import ROOT, run
from yolov10_dysample import registration
from yolov10_dysample.dysample import DySample

SIZES = "nsmblx"
#: Extra parameters over the stock model, from the arithmetic of the layer (see the README's table of variants).
EXTRA = {"n": 12_352, "s": 24_640, "m": 30_784, "b": 32_832, "l": 32_832, "x": 41_024}


def stock_yaml(size):
    return HOST / f"cfg/models/v10/yolov10{size}.yaml"


def build(*rows, ch=3, file="mine.yaml"):
    """The layers of a tiny model: two convolutions of 16 and 32 channels, then the rows."""
    convolutions = [[-1, 1, "Conv", [16, 3, 1]], [-1, 1, "Conv", [32, 3, 1]]]
    model = {"nc": 1, "yaml_file": file, "backbone": convolutions, "head": [list(row) for row in rows]}
    before = copy.deepcopy(model)
    layers, save = tasks.parse_model(model, ch, verbose=False)
    assert model == before, "the caller's model was changed"
    return layers, save


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], DySample(32)),
        ([3], DySample(32, 3)),
        ([2, "pl"], DySample(32, 2, "pl")),
        ([2, "lp", 8], DySample(32, 2, "lp", 8)),
        ([4, "lp", 2, True], DySample(32, 4, "lp", 2, True)),
        ([2, "pl", 8, False, "nearest"], DySample(32, 2, "pl", 8, False, "nearest")),
    ],
    ids=str,
)
def test_a_row_gives_the_layer_it_spells(arguments, expected):
    layers, _ = build([-1, 1, "DySample", arguments])
    assert type(layers[2]) is DySample
    assert str(layers[2]) == str(expected)


@pytest.mark.parametrize(("source", "width"), [(-1, 32), (1, 32), (0, 16), (-2, 16)])
def test_a_row_may_read_any_earlier_layer(source, width):
    layers, save = build([source, 1, "DySample", []])
    assert (layers[2].in_channels, layers[2].f, layers[2].i) == (width, source, 2)
    assert layers[2].type == "yolov10_dysample.dysample.DySample"
    assert save == ([] if source == -1 else [source % 2])


def test_the_row_after_it_sees_its_width():
    layers, _ = build(
        [0, 1, "DySample", []], [-1, 1, "Conv", [8, 1, 1]], [[-1, 2], 1, "Concat", [1]], [-1, 1, "DySample", []]
    )
    assert layers[3].conv.in_channels == 16
    assert layers[5].in_channels == 24


def test_it_may_be_the_first_row():
    layers, _ = tasks.parse_model(
        {"nc": 1, "backbone": [[-1, 1, "DySample", [2, "lp", 1]]], "head": []}, 3, verbose=False
    )
    assert layers[0].in_channels == 3


BAD_ROWS = [
    (
        [-1, 1, "DySample", [256]],
        r"256 looks like a number of channels: DySample takes its width from the row it reads",
    ),
    ([-1, 1, "DySample", [256, 2]], "256 looks like a number of channels"),
    ([-1, 1, "DySample", [None, 2, "nearest"]], r"these are nn\.Upsample's arguments"),
    ([-1, 1, "DySample", ["None", 2, "nearest"]], r"these are nn\.Upsample's arguments"),
    ([-1, 1, "DySample", [2, "lp", 4, True, "nearest", 1]], "too many arguments"),
    ([-1, 1, "DySample", [1]], "scale must be .* got 1"),
    ([-1, 1, "DySample", [0]], "scale must be .* got 0"),
    ([-1, 1, "DySample", [-2]], "scale must be .* got -2"),
    ([-1, 1, "DySample", [2.5]], r"scale must be .* got 2\.5"),
    ([-1, 1, "DySample", [10**9]], "1000000000 looks like a number of channels"),
    ([-1, 1, "DySample", ["c2"]], "scale must be .* got 'c2'"),
    ([-1, 1, "DySample", ["d", "lp"]], "scale must be .* got 'd'"),
    ([-1, 1, "DySample", [2, "width"]], "style must be .* got 'width'"),
    ([-1, 1, "DySample", [2, "lp", 5]], r"groups must be .* \(32\), got 5"),
    ([-1, 1, "DySample", [2, "lp", "args"]], "groups must be .* got 'args'"),
    ([-1, 1, "DySample", [2, "lp", 4, "yes"]], "dyscope must be True or False, got 'yes'"),
    ([-1, 1, "DySample", [2, "lp", 4, True, "bicubic"]], "init must be .* got 'bicubic'"),
    ([-1, 1, "DySample", [3, "pl"]], r"divisible by scale\*\*2 = 9, got 32"),
    ([-1, 1, "DySample", {"scale": 2}], r"args must be a list, one of \[\], \[scale\]"),
    ([-1, 1, "DySample", 2], "args must be a list"),
    ([-1, 1, "DySample", None], "args must be a list"),
    ([-1, 3, "DySample", []], "`repeats` must be 1 .*, got 3"),
    ([-1, 0, "DySample", []], "`repeats` must be 1 .*, got 0"),
    ([-1, "n", "DySample", []], "`repeats` must be 1 .*, got 'n'"),
    ([[-1, 0], 1, "DySample", []], r"`from` must be -1 or the index of one earlier row, got \[-1, 0\]"),
    ([2, 1, "DySample", []], "`from` must be .* got 2"),
    ([7, 1, "DySample", []], "`from` must be .* got 7"),
    ([-3, 1, "DySample", []], "`from` must be .* got -3"),
    (["c2", 1, "DySample", []], "`from` must be .* got 'c2'"),
    ([True, 1, "DySample", []], "`from` must be .* got True"),
    ([-1, 1, "DySample"], r"a row is \[from, repeats, module, args\]"),
    ([-1, 1, "DySample", [], []], r"a row is \[from, repeats, module, args\]"),
]


@pytest.mark.parametrize(("row", "message"), BAD_ROWS, ids=[str(row) for row, _ in BAD_ROWS])
def test_a_refused_row_names_its_index_its_file_and_the_fix(row, message):
    with pytest.raises(ValueError, match=rf"(?s)^DySample, row 2 of mine\.yaml: .*{message}"):
        build(row)


def test_a_width_that_is_no_number_is_refused_by_row():
    with pytest.raises(ValueError, match=r"row 3 of mine\.yaml: in_channels must be a whole number"):
        build([-1, 1, "CBLinear", [[8, 8]]], [-1, 1, "DySample", []])


@pytest.mark.parametrize("size", SIZES)
def test_a_shipped_config_is_the_installed_stock_one_but_for_its_two_upsampling_rows(size):
    ours = yaml.safe_load((ROOT / f"configs/yolov10{size}-dysample.yaml").read_text())
    stock = yaml.safe_load(stock_yaml(size).read_text())
    rows = stock["backbone"] + stock["head"]
    swapped = [i for i, row in enumerate(rows) if row[2] == "nn.Upsample"]
    assert swapped == [11, 14]
    for i in swapped:
        rows[i][2:] = ["DySample", [2, "lp", 4]]
    assert ours == stock


@pytest.mark.parametrize("size", SIZES)
def test_a_shipped_model_adds_the_parameters_of_its_layers_and_shares_all_other_weights(size):
    models = []
    for name in (str(stock_yaml(size)), f"yolov10{size}-dysample.yaml"):
        torch.manual_seed(0)
        models.append(tasks.DetectionModel(name, verbose=False))
    stock, ours = (model.state_dict() for model in models)
    count = [sum(p.numel() for p in model.parameters()) for model in models]
    assert count[1] - count[0] == EXTRA[size]
    assert {name.split(".")[1] for name in ours.keys() - stock.keys()} == {"11", "14"}
    for name, weight in stock.items():
        assert torch.equal(ours[name], weight), name


def test_a_bare_name_keeps_the_users_name_and_scale(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = tasks.yaml_model_load("yolov10s-dysample.yaml")
    assert (model["yaml_file"], model["scale"]) == ("yolov10s-dysample.yaml", "s")


def test_a_file_of_the_users_wins_over_the_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = (ROOT / "configs/yolov10n-dysample.yaml").read_text().replace("nc: 80", "nc: 7")
    (tmp_path / "yolov10n-dysample.yaml").write_text(mine)
    assert tasks.yaml_model_load("yolov10n-dysample.yaml")["nc"] == 7


@pytest.mark.parametrize("name", ["yolov10-dysample.yaml", "nowhere/yolov10n-dysample.yaml", "yolov10q-dysample.yaml"])
def test_a_name_that_is_not_found_gets_the_names_that_are(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"'{name}' does not exist.*yolov10b-dysample\.yaml, .*yolov10x"):
        tasks.yaml_model_load(name)


def test_other_missing_files_are_the_hosts_to_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as error:
        tasks.yaml_model_load("yolov10q.yaml")
    assert "dysample" not in str(error.value)


def test_registering_again_changes_nothing_from_any_thread():
    before = (tasks.parse_model, tasks.yaml_model_load, tasks.DySample)
    threads = [threading.Thread(target=registration.register) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert registration.register() is True
    assert (tasks.parse_model, tasks.yaml_model_load, tasks.DySample) == before


def test_every_module_that_imported_a_wrapped_function_has_the_wrapped_one():
    from ultralytics.engine import model

    assert model.yaml_model_load is tasks.yaml_model_load
    assert ultralytics.nn.parse_model is tasks.parse_model


def test_it_works_below_and_above_another_plugin_that_wraps_the_parser(monkeypatch):
    seen = []

    def other(parse_model):
        @functools.wraps(parse_model)
        def parse(d, ch, verbose=True):
            seen.append([row[2] for row in d["head"]])
            return parse_model(d, ch, verbose)

        return parse

    monkeypatch.setattr(tasks, "parse_model", other(tasks.parse_model))
    registration.register()
    assert type(build([-1, 1, "DySample", []])[0][2]) is DySample

    monkeypatch.setattr(tasks, "parse_model", other(tasks.parse_model.__wrapped__.__wrapped__))
    registration.register()
    assert type(build([-1, 1, "DySample", []])[0][2]) is DySample
    assert len(seen) == 2


def test_models_without_dysample_reach_the_parser_untouched(monkeypatch):
    received = []

    def parse_model(d, ch, verbose=True):
        received.append(d)

    model = {"backbone": [[-1, 1, "nn.Upsample", [None, 2, "nearest"]]], "head": []}
    registration._with_dysample_rows(parse_model)(model, 3)
    assert received[0] is model


FOREIGN = """
import torch, ultralytics.nn.modules as modules
{early}
import ultralytics.nn.tasks as tasks
class DySample(torch.nn.Identity): pass
tasks.DySample = modules.DySample = DySample
stock = tasks.parse_model
import yolov10_dysample
assert yolov10_dysample.register() is False and yolov10_dysample.register() is False
assert tasks.DySample is DySample and modules.DySample is DySample
print("untouched", tasks.parse_model is stock)
"""


def test_another_dysample_stays_in_use_and_is_said_once(python, tmp_path):
    output = run(python, "-c", FOREIGN.format(early=""), cwd=tmp_path, env={"YOLOV10_DYSAMPLE_AUTOLOAD": "0"})
    assert output.count("is already there, from __main__: it stays in use") == 1
    assert "untouched True" in output


UNFIT = """
import ultralytics.nn.tasks as tasks
tasks.parse_model = lambda model, channels: None
stock = dict(vars(tasks))
import yolov10_dysample
assert yolov10_dysample.register() is False
assert dict(vars(tasks)) == stock
"""


def test_a_host_that_does_not_fit_is_left_untouched_with_one_line(python, tmp_path):
    output = run(python, "-c", UNFIT, cwd=tmp_path, env={"YOLOV10_DYSAMPLE_AUTOLOAD": "0"})
    assert output.count("\n") == 1
    assert (
        f"does not fit Ultralytics {ultralytics.__version__}: ultralytics.nn.tasks has no parse_model(d, ch" in output
    )


CHANGES = """
import sys
import torch
import ultralytics.nn.tasks, ultralytics.engine.model

def names():
    return {
        (module, name): (id(value), str(value) if isinstance(value, (dict, list, set)) else None)
        for module, loaded in list(sys.modules.items())
        if module.partition(".")[0] == "ultralytics" and getattr(loaded, "__dict__", None)
        for name, value in list(vars(loaded).items())
    }

before = names()
import yolov10_dysample
yolov10_dysample.register()
modules = {module for module, _ in before}
print([f"{m}.{n}" for (m, n), value in names().items() if m in modules and before.get((m, n)) != value])
"""


def test_nothing_is_touched_that_is_not_in_the_list(python, tmp_path):
    output = run(python, "-c", CHANGES, cwd=tmp_path, env={"YOLOV10_DYSAMPLE_AUTOLOAD": "0"})
    # The same objects, where the host has imported them by name.
    elsewhere = {
        "ultralytics.nn.parse_model",
        "ultralytics.nn.yaml_model_load",
        "ultralytics.engine.model.yaml_model_load",
        "ultralytics.utils.callbacks.default_callbacks",
    }
    listed = {what for what, _ in registration.HOST_CHANGES if what.startswith("ultralytics.")}
    assert set(ast.literal_eval(output)) - elsewhere == listed


def test_nn_upsample_is_still_nn_upsample():
    layers, _ = build([-1, 1, "nn.Upsample", [None, 2, "nearest"]])
    assert type(layers[2]) is nn.Upsample
