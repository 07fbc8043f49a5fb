"""What registration does to Ultralytics, and that it does nothing else."""

import ast
import copy
import fnmatch
import functools
import inspect
import re
import sys
import threading
import types

import pytest
import torch
import ultralytics
import yaml
from torch import nn
from ultralytics.nn import tasks
from ultralytics.utils import ROOT as HOST

import yolov10_dysample
from tests.conftest import ROOT, run
from tests.small_models import small_model
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
    ([-1, "DySample", [2]], r"a row is \[from, repeats, module, args\]"),
    (["DySample"], r"a row is \[from, repeats, module, args\]"),
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


@pytest.mark.parametrize("size", [*"ns", *(pytest.param(size, marks=pytest.mark.slow) for size in "mblx")])
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


def test_a_module_of_ultralytics_that_imported_a_function_before_it_was_wrapped_gets_the_wrapped_one(monkeypatch):
    early, elsewhere = types.ModuleType("ultralytics.early"), types.ModuleType("another_plugin")
    stock = inspect.unwrap(tasks.parse_model)
    for module in (early, elsewhere):
        module.parse_model = stock
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(tasks, "parse_model", stock)
    assert registration.register() is True
    assert early.parse_model is tasks.parse_model is not stock
    assert elsewhere.parse_model is stock


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


def test_a_later_plugin_that_the_probe_cannot_see_through_leaves_models_as_they_were(monkeypatch, caplog):
    def no_wraps(d, ch, verbose=True, ours=tasks.parse_model):
        if d.get("yaml_file") is None:  # the probe's model, say
            raise ValueError("another plugin takes no such model")
        return ours(d, ch, verbose)

    registration._warn_once.cache_clear()
    monkeypatch.setattr(tasks, "parse_model", no_wraps)
    assert registration.register() is False
    assert "takes no such model" in caplog.text
    model = {"nc": 1, "yaml_file": "mine.yaml", "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "DySample", []]]}
    assert type(tasks.parse_model({**model, "head": []}, 3, verbose=False)[0][1]) is DySample


def test_a_second_copy_of_the_operator_is_named_as_such_and_the_first_stays_in_use(monkeypatch, caplog):
    second = type("DySample", (DySample,), {"__module__": DySample.__module__})
    registration._warn_once.cache_clear()
    monkeypatch.setattr(registration, "DySample", second)
    assert registration.register() is False
    assert "loaded a second time in this process" in caplog.text
    assert "start a new process" in caplog.text
    assert tasks.DySample is DySample


def test_what_a_newer_ultralytics_may_pass_on_when_it_reads_a_model_reaches_it(monkeypatch):
    stock = inspect.unwrap(tasks.yaml_model_load)
    monkeypatch.setattr(tasks, "yaml_model_load", lambda path, verbose=True: {**stock(path), "verbose": verbose})
    registration.register()
    for name in ("yolov10n.yaml", "yolov10n-dysample.yaml", "yolo11n-dysample.yaml"):
        assert tasks.yaml_model_load(name, verbose=False)["verbose"] is False


@pytest.mark.parametrize(
    ("trained", "loaded", "said"),
    [
        ("[2, lp, 4, False, nearest]", "[]", "init='nearest' are loaded into init='bilinear'"),
        ("[2, lp, 4, True]", "[2]", "dyscope=True are loaded into dyscope=False"),
        ("[2]", "[2, lp, 4, True]", None),  # whose predicted range begins as that of the weights
        ("[2, lp, 4, False, nearest]", "[2, lp, 4, False, nearest]", None),
        ("[2, lp, 8, False, nearest]", "[]", None),  # of another shape, so that they are not loaded
    ],
)
def test_weights_of_a_layer_that_samples_elsewhere_are_told_when_they_are_loaded(
    trained, loaded, said, tmp_path, caplog
):
    source, target = (small_model(tmp_path, row=f"DySample, {row}") for row in (trained, loaded))
    caplog.clear()
    target.load(source.model)
    told = [line for line in caplog.messages if "DySample, row 2: weights trained with" in line]
    assert len(told) == (said is not None)
    assert said is None or said in told[0]


def test_all_other_weights_go_back_into_the_stock_model_which_is_told(caplog):
    ours, stock = ultralytics.YOLO("yolov10n-dysample.yaml"), ultralytics.YOLO("yolov10n.yaml")
    ultralytics.YOLO("yolov10n-dysample.yaml").load(stock.model)
    assert "upsamples by nn.Upsample" not in caplog.text
    stock.load(ours.model)
    assert "Transferred 595/595 items" in caplog.text
    assert "DySample, rows 11, 14: weights trained with it are loaded into a model that upsamples by nn" in caplog.text


def test_models_without_dysample_reach_the_parser_untouched(monkeypatch):
    received, stock = [], inspect.unwrap(tasks.parse_model)

    def parse_model(d, ch, verbose=True):
        received.append(d)
        return stock(d, ch, verbose)

    monkeypatch.setattr(tasks, "parse_model", parse_model)
    assert registration.register() is True
    assert tasks.parse_model is not parse_model
    model = {"nc": 1, "backbone": [[-1, 1, "nn.Upsample", [None, 2, "nearest"]]], "head": []}
    tasks.parse_model(model, 3, verbose=False)
    assert received[-1] is model


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


@pytest.mark.slow
def test_another_dysample_stays_in_use_and_is_said_once(python, tmp_path):
    output = run(python, "-c", FOREIGN.format(early=""), cwd=tmp_path, env={"YOLOV10_DYSAMPLE_AUTOLOAD": "0"})
    assert output.count("is already there, from __main__: it stays in use") == 1
    assert "untouched True" in output


RENAMED = """
source = inspect.getsource(tasks.parse_model)
signature, body = source.split("\\n", 1)
exec(signature + "\\n" + {edit}, vars(tasks))
"""
UNFIT = {
    "parse_model takes something else": (
        "tasks.parse_model = lambda model, channels: None",
        r"ultralytics\.nn\.tasks has no parse_model\(d, ch, \.\.\.\)",
    ),
    "the width of the row before is no longer c2": (
        RENAMED.format(edit='re.sub(r"\\bc2\\b", "width_out", body)'),
        r"its model parser cannot build a DySample row \(RowError: DySample, row 0 of the model: in_channels .* 'c2'",
    ),
    "the widths of all rows are no longer ch": (
        RENAMED.format(edit='re.sub(r"\\bch\\b", "widths", body).replace("widths = [widths]", "widths = [ch]")'),
        r"its model parser cannot build a DySample row \(TypeError: 'int' object is not subscriptable\)",
    ),
    "ch has other numbers": (
        RENAMED.format(edit='body.replace("ch.append(c2)", "ch.append(2 * c2)")'),
        r"its model parser cannot build a DySample row \(three rows of 4 channels were built with \[4, 8, 8\]\)",
    ),
    "layers are looked up elsewhere": (
        RENAMED.format(edit='body.replace("globals()[m]", "dict(Conv=Conv)[m]")'),
        r"its model parser cannot build a DySample row \(KeyError: '_DySampleRow'\)",
    ),
}
# A child for each case, of a process that has loaded Ultralytics once for all.
LEFT_ALONE = """
import inspect, os, re
import torch
import ultralytics.nn.tasks as tasks

def look(change):
    exec(change)
    before = dict(vars(tasks))
    import yolov10_dysample
    assert yolov10_dysample.register() is False and yolov10_dysample.register() is False
    assert dict(vars(tasks)) == before
    assert not hasattr(tasks.DetectionModel.__init__, "__wrapped__")
    print("untouched", flush=True)

for case, change in {changes!r}.items():
    print("case", case, flush=True)
    if not (child := os.fork()):
        try:
            look(change)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.mark.slow
def test_an_ultralytics_that_does_not_fit_is_left_untouched_with_one_line(python, tmp_path):
    changes = {case: change for case, (change, _) in UNFIT.items()}
    off = {"YOLOV10_DYSAMPLE_AUTOLOAD": "0"}
    output = run(python, "-c", LEFT_ALONE.format(changes=changes), cwd=tmp_path, env=off)
    versions = f"{yolov10_dysample.__version__} does not fit Ultralytics {ultralytics.__version__}"
    said = dict(part.split("\n", 1) for part in output.split("case ")[1:])
    assert set(said) == set(UNFIT)
    for case, (_, fault) in UNFIT.items():
        assert re.fullmatch(
            rf"(WARNING ⚠️ )?yolov10_dysample {versions}: {fault}.*\. Ultralytics is left untouched; look for a "
            rf"newer yolov10_dysample\.\nuntouched\n",
            said[case],
        ), case


CHANGES = """
import random, sys
import numpy, torch
import ultralytics.nn.tasks, ultralytics.engine.model
import yaml  # as ultralytics does, from its first use on

def names():
    found = {}
    for module, loaded in list(sys.modules.items()):
        if module.partition(".")[0] == "ultralytics" and getattr(loaded, "__dict__", None):
            for name, value in list(vars(loaded).items()):
                found[module, name] = (id(value), str(value) if isinstance(value, (dict, list, set)) else None)
                if isinstance(value, type) and value.__module__ == module:
                    found.update({(module, f"{name}.{key}"): id(inner) for key, inner in vars(value).items()})
    return found

def numbers():
    return torch.get_rng_state().tolist(), random.getstate(), numpy.random.get_state()[1].tolist()

before, drawn, modules = names(), numbers(), set(sys.modules)
finders, classes = list(sys.meta_path), set(torch.serialization.get_safe_globals())
import yolov10_dysample
assert yolov10_dysample.register() is True
assert numbers() == drawn
assert [m for m in set(sys.modules) - modules if "yolov10_dysample" not in m] == []
loaded = {module for module, _ in before}
print([f"{m}.{n}" for (m, n), value in names().items() if m in loaded and before.get((m, n)) != value])
print([type(finder).__name__ for finder in sys.meta_path if finder not in finders])
print([c.__name__ for c in set(torch.serialization.get_safe_globals()) - classes])
"""


@pytest.mark.slow
def test_nothing_is_touched_that_is_not_in_the_list_and_all_that_is(python, tmp_path):
    output = run(python, "-c", CHANGES, cwd=tmp_path, env={"YOLOV10_DYSAMPLE_AUTOLOAD": "0"})
    touched, finders, classes = map(ast.literal_eval, output.splitlines())
    assert (finders, classes) == (["DySampleFinder"], ["DySample"])
    # The same dictionary, under the name of the package that it is in.
    touched = set(touched) - {"ultralytics.utils.callbacks.default_callbacks"}
    listed = {what for what, _ in registration.HOST_CHANGES}
    assert {"sys.meta_path", "torch.serialization"} <= listed
    patterns = {what for what in listed if what.startswith("ultralytics.")}
    if not hasattr(tasks, "SemanticSegmentationModel"):  # older releases
        patterns.discard("ultralytics.nn.tasks.SemanticSegmentationModel.__init__")
    assert not {name for name in touched if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)}
    assert not {pattern for pattern in patterns if not fnmatch.filter(touched, pattern)}


# Maps that do not fit

NECK = [
    [-1, 1, "Conv", [8, 3, 2]],  # 128 x 128
    [-1, 1, "Conv", [8, 3, 2]],  # 64 x 64
    [-1, 1, "Conv", [8, 3, 2]],  # 32 x 32
]


def detector(*rows, head="Detect", file="mine.yaml"):
    """A model of three strided convolutions, the rows, and a head that reads the last of them."""
    rows = [list(row) for row in rows]
    return {
        "nc": 2,
        "yaml_file": file,
        "backbone": copy.deepcopy(NECK),
        "head": [*rows, [[len(NECK) + len(rows) - 1], 1, head, ["nc"]]],
    }


def up(*arguments, source=-1):
    return [source, 1, "DySample", list(arguments)]


JOIN = [[-1, 1], 1, "Concat", [1]]
BAD_SCALES = {
    "the row before the join": ([up(3), JOIN], (3, 3, 4, "96 x 96", 3, "64 x 64", 1), "Scale 2 would fit"),
    "layers between": (
        [up(5), [-1, 1, "Conv", [8, 1, 1]], [-1, 1, "nn.Identity", []], JOIN],
        (3, 5, 6, "160 x 160", 5, "64 x 64", 1),
        "Scale 2 would fit",
    ),
    "no scale would fit": (
        [up(2, source=0), [-1, 1, "nn.Identity", []], JOIN],
        (3, 2, 5, "256 x 256", 4, "64 x 64", 1),
        "Change the scale, or what row 5 joins",
    ),
    "the second of two": (
        [up(2), JOIN, up(4), [[-1, 0], 1, "Concat", [1]]],
        (5, 4, 6, "256 x 256", 5, "128 x 128", 0),
        "Scale 2 would fit",
    ),
    "two of different scales": (
        [up(2), up(3, source=2), [[-1, -2], 1, "Concat", [1]]],
        (4, 3, 5, "96 x 96", 4, "64 x 64", 3),
        "Scale 2 would fit",
    ),
}


@pytest.mark.parametrize("case", BAD_SCALES)
def test_a_map_that_does_not_fit_is_told_by_row_file_and_sizes(case):
    rows, (row, scale, join, size, source, other_size, other), remedy = BAD_SCALES[case]
    message = (
        f"DySample, row {row} of mine.yaml: with scale {scale} its map does not fit in row {join}, which joins the "
        f"{size} map of row {source} and the {other_size} map of row {other} (for an image of 256 px). {remedy}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        tasks.DetectionModel(detector(*rows), verbose=False)


@pytest.mark.parametrize(
    "kind", [kind for kind in ("SegmentationModel", "SemanticSegmentationModel") if hasattr(tasks, kind)]
)
def test_every_kind_of_model_that_is_run_when_it_is_built_tells_it(kind):
    name = {"SegmentationModel": "yolov8n-seg", "SemanticSegmentationModel": "yolo26n-sem"}[kind]
    model = tasks.yaml_model_load(f"{name}-dysample.yaml")
    row = next(row for row in model["head"] if row[2] == "DySample")
    row[3][0] = 3
    i = (model["backbone"] + model["head"]).index(row)
    with pytest.raises(ValueError, match=rf"^DySample, row {i} of {name}-dysample\.yaml: .* 24 x 24 .* 16 x 16 "):
        getattr(tasks, kind)(model, verbose=False)


def test_a_scale_that_fits_is_accepted_whatever_it_is():
    rows = [up(3), up(3, "lp", 2, source=2), [[-1, -2], 1, "Concat", [1]]]
    model = tasks.DetectionModel(detector(*rows), verbose=False)
    assert model.stride.tolist() == [pytest.approx(256 / 96)]


@pytest.mark.parametrize(
    "rows",
    [
        [up(2), [-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 2]], [[0, 1], 1, "Concat", [1]]],
        [up(2), JOIN, [-1, 1, "Conv", [8, 3, 2]], [[-1, 0], 1, "Concat", [1]]],
        [[-1, 1, "nn.Upsample", [None, 3, "nearest"]], JOIN],
    ],
    ids=["two other rows", "after a join that fits", "nn.Upsample"],
)
def test_what_is_not_the_fault_of_a_dysample_row_is_torchs_to_tell(rows):
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        tasks.DetectionModel(detector(*rows), verbose=False)


@pytest.mark.slow
def test_the_stock_command_ends_with_the_row_the_file_and_the_sizes(yolo, digits, tmp_path):
    text = (ROOT / "configs/yolov10n-dysample.yaml").read_text().replace("DySample, [2,", "DySample, [3,", 1)
    (tmp_path / "mine.yaml").write_text(text)
    output = run(yolo, "detect", "train", "model=mine.yaml", f"data={digits}", cwd=tmp_path, ok=False)
    assert "row 11 of mine.yaml: with scale 3 its map does not fit in row 12" in output.splitlines()[-1]
    assert "Sizes of tensors" not in output


def test_nn_upsample_is_still_nn_upsample():
    layers, _ = build([-1, 1, "nn.Upsample", [None, 2, "nearest"]])
    assert type(layers[2]) is nn.Upsample
