"""DySample put into model YAMLs: what changes, what stays, and what is refused."""

import copy
import re

import pytest
import yaml

from yolov10_dysample import convert_rows, convert_yaml
from yolov10_dysample.model_files import find_stock

UP = [-1, 1, "nn.Upsample", [None, 2, "nearest"]]
SMALL = {
    "nc": 1,
    "backbone": [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [32, 3, 2]]],
    "head": [UP, [[-1, 0], 1, "Concat", [1]], UP, [-1, 1, "Conv", [8, 1, 1]]],
}


def rows(model):
    return [*model["backbone"], *model["head"]]


# Parsed model YAMLs


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({}, [2, "lp", 4]),
        ({"style": "pl", "groups": 8}, [2, "pl", 8]),
        ({"dyscope": True}, [2, "lp", 4, True]),
        ({"init": "nearest"}, [2, "lp", 4, False, "nearest"]),
        ({"style": "pl", "groups": 2, "dyscope": True, "init": "nearest"}, [2, "pl", 2, True, "nearest"]),
    ],
    ids=str,
)
def test_upsampling_rows_become_dysample_rows_in_their_places(options, arguments):
    before = copy.deepcopy(SMALL)
    model, swapped = convert_rows(SMALL, **options)
    assert before == SMALL
    assert swapped == [2, 4]
    for i, (old, new) in enumerate(zip(rows(SMALL), rows(model), strict=True)):
        assert new == ([-1, 1, "DySample", arguments] if i in swapped else old)
    assert {**model, "head": None} == {**SMALL, "head": None}


@pytest.mark.parametrize("chosen", [[4], (4, 4), {4}, range(4, 5)], ids=str)
def test_only_the_rows_asked_for_are_replaced(chosen):
    model, swapped = convert_rows(SMALL, rows=chosen)
    assert swapped == [4]
    assert rows(model)[2] == UP
    assert rows(model)[4][2] == "DySample"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([0, 1, "nn.Upsample", ["None", 3, "bilinear"]], [0, 1, "DySample", [3, "lp", 4]]),
        ([-2, 1, "nn.Upsample", [None, 4.0]], [-2, 1, "DySample", [4, "lp", 4]]),
    ],
    ids=str,
)
def test_source_and_scale_are_the_rows_own(row, expected):
    model, _ = convert_rows({"backbone": SMALL["backbone"], "head": [row]})
    assert model["head"] == [expected]


def with_row(row):
    return {"backbone": SMALL["backbone"], "head": [row], "yaml_file": "mine.yaml"}


def up(*arguments, repeats=1):
    return with_row([-1, repeats, "nn.Upsample", list(arguments)])


BAD_CONVERSIONS = [
    ({"rows": [3]}, SMALL, r"row 3 of the model is Concat, not nn\.Upsample: nn\.Upsample is in rows 2, 4$"),
    ({"rows": [6]}, SMALL, r"indices from 0 to 5 in the model, got 6: nn\.Upsample is in rows 2, 4"),
    ({"rows": [-1]}, SMALL, "indices from 0 to 5 .* got -1"),
    ({"rows": ["2"]}, SMALL, "indices from 0 to 5 .* got '2'"),
    ({"rows": [True]}, SMALL, "indices from 0 to 5 .* got True"),
    ({"rows": [2.0]}, SMALL, r"indices from 0 to 5 .* got 2\.0"),
    ({"rows": 2}, SMALL, "rows must be a list of row indices, got 2"),
    ({"rows": {2: 1}}, SMALL, r"rows must be a list of row indices, got \{2: 1\}: nn\.Upsample is in rows 2, 4$"),
    ({"rows": "24"}, SMALL, "rows must be a list of row indices, got '24': "),
    ({"rows": b"\x02"}, SMALL, r"rows must be a list of row indices, got b'\\x02'"),
    ({"rows": [[2]]}, SMALL, r"rows must be a list of row indices, got \[\[2\]\]"),
    ({"rows": []}, SMALL, "rows must name at least one row"),
    ({"style": "lpp"}, SMALL, "style must be one of 'lp', 'pl', got 'lpp'"),
    ({"init": "bicubic"}, SMALL, "init must be one of 'bilinear', 'nearest', got 'bicubic'"),
    ({"groups": 0}, SMALL, "groups must be a whole number of at least 1, got 0"),
    ({"groups": "4"}, SMALL, "groups must be .* got '4'"),
    ({"dyscope": "yes"}, SMALL, "dyscope must be True or False, got 'yes'"),
    (
        {},
        up(None, 1.5, "nearest"),
        r"^row 2 of mine\.yaml: .* whole number from 2 to 8, .* got \[None, 1\.5, 'nearest'\]",
    ),
    ({}, up(None, 9), "whole number from 2 to 8"),
    ({}, up(None, 1), "whole number from 2 to 8"),
    ({}, up(None, -2), "whole number from 2 to 8"),
    ({}, up(None, float("nan")), "whole number from 2 to 8"),
    ({}, up(None, "2"), "whole number from 2 to 8"),
    ({}, up(None, [2, 2]), "whole number from 2 to 8"),
    ({}, up([40, 40], None, "nearest"), r"whole number from 2 to 8, .*got \[\[40, 40\]"),
    ({}, up(40), "whole number from 2 to 8"),
    ({}, up(), "whole number from 2 to 8"),
    ({}, with_row([-1, 1, "nn.Upsample", None]), "whole number from 2 to 8"),
    ({}, up(None, 2, repeats=2), "`repeats` 1 .* got 2"),
    ({}, {**SMALL, "head": []}, r"nothing to swap in the model: there is no nn\.Upsample row; its 2 rows are Conv$"),
    ({}, {"backbone": [], "head": []}, "its 0 rows are no layers"),
    ({}, convert_rows(SMALL)[0], "no nn.Upsample row, and DySample already in rows 2, 4"),
    ({}, {"backbone": SMALL["backbone"]}, "is not a model YAML: it needs `backbone` and `head`"),
    ({}, {"names": ["person"]}, "is not a model YAML"),
    ({}, {"backbone": "x", "head": 3}, "is not a model YAML"),
    ({}, None, "is not a model YAML"),
    ({}, [UP], "is not a model YAML"),
    ({}, "head: []", "is not a model YAML"),
    ({}, with_row("nn.Upsample"), r"there is no nn\.Upsample row"),
    ({}, with_row([-1, 1, "nn.Upsample"]), r"there is no nn\.Upsample row"),
]


@pytest.mark.parametrize(("options", "model", "message"), BAD_CONVERSIONS, ids=[m for _, _, m in BAD_CONVERSIONS])
def test_a_refused_conversion_says_what_it_looked_for_and_what_is_there(options, model, message):
    with pytest.raises(ValueError, match=message):
        convert_rows(model, **options)


# The text of model YAMLs

LAYOUTS = {
    "comments": """\
# Ærø's model 日本
nc: 1
backbone:
  - [-1, 1, Conv, [16, 3, 2]] # nn.Upsample, [None, 2, nearest] is not here
  # - [-1, 1, nn.Upsample, [None, 2, nearest]]
head:
  - [-1, 1,   nn.Upsample, [ None,2 , "nearest"] ]   # 1: kept
  - [-1, 1, 'nn.Upsample', ['None', 2]]
""",
    "several lines": """\
backbone: [[-1, 1, Conv, [16, 3, 2]]]
head:
  - [-1, 1,
     nn.Upsample, # the layer
     [None,
      2, nearest]] # its arguments
  - - -1
    - 1
    - nn.Upsample
    - [None, 2, nearest]
""",
    "head first": """\
head: [[-1, 1, nn.Upsample, [None, 2, nearest]], [-1, 1, Conv, [8, 1, 1]]]
backbone: [[-1, 1, Conv, [16, 3, 2]], [-1, 1, nn.Upsample, [None, 4, nearest]]]
""",
}


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_text_says_what_the_converted_model_says_and_keeps_its_layout(layout, newline, recwarn):
    text = LAYOUTS[layout].replace("\n", newline)
    converted = convert_yaml(text, groups=8)
    assert yaml.safe_load(converted) == convert_rows(yaml.safe_load(text), groups=8)[0]
    assert re.findall("#.*?\n", converted)[-1:] == re.findall("#.*?\n", text)[-1:]
    assert not recwarn.list
    rest = r"'?(nn\.Upsample|DySample)'?,?[^\[]*\[[^\]]*\]"
    if layout != "several lines":
        assert re.sub(rest, "", converted) == re.sub(rest, "", text)


def test_a_stock_yaml_changes_in_its_upsampling_rows_only():
    stock = find_stock("yolov10n.yaml").read_text()
    changed = [
        (old, new) for old, new in zip(stock.splitlines(), convert_yaml(stock).splitlines(), strict=True) if old != new
    ]
    assert changed == [('  - [-1, 1, nn.Upsample, [None, 2, "nearest"]]', "  - [-1, 1, DySample, [2, lp, 4]]")] * 2


@pytest.mark.parametrize(
    "text",
    [
        "backbone: [[-1, 1, Conv, [16, 3, 2]]]\nhead: [&up [-1, 1, nn.Upsample, [None, 2]], *up] # lost\n",
        "backbone: []\nhead: [[-1, 1, nn.Upsample, &b [None, 2]], [-1, 1, nn.Upsample, *b]]\n",
        "base: &base\n  head: [[-1, 1, nn.Upsample, [None, 2]]]\n<<: *base\nbackbone: []\n",
    ],
    ids=["shared row", "shared arguments", "merged"],
)
def test_an_unusual_layout_is_written_anew_and_said(text):
    expected = convert_rows(yaml.safe_load(text), rows=[len(yaml.safe_load(text)["backbone"])])[0]
    with pytest.warns(UserWarning, match="layout of the original could not be kept"):
        converted = convert_yaml(text, rows=[len(yaml.safe_load(text)["backbone"])])
    assert yaml.safe_load(converted) == expected
    assert converted.startswith("# Converted to DySample; the comments and the layout of the original could not")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("head: [", "this is not YAML: .*line 1"),
        ("[" * 5000, "this is not YAML"),
        ("!!python/object:os.system {}", "this is not YAML"),
        ("\0", "this is not YAML"),
        ("", "is not a model YAML"),
        ("just words", "is not a model YAML"),
    ],
    ids=["open bracket", "deep", "python tag", "control character", "empty", "words"],
)
def test_text_that_is_no_model_is_refused_in_one_line(text, message):
    with pytest.raises(ValueError, match=message) as error:
        convert_yaml(text)
    assert "\n" not in str(error.value)
