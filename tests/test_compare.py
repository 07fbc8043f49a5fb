"""The comparison is fair, and its report says what the records say: no more, and the same every time."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from scripts import compare, compare_report
from tests.conftest import ROOT, clean_environ, run
from yolov10_dysample.model_files import find_stock

STOCK = yaml.safe_load(find_stock("yolov10n.yaml").read_text())
DIGEST = {"start": "a", "data": "b"}


def record(value, seed, arm, **more):
    epochs = [{"mAP50-95": value / 2, "mAP50": value}, {"mAP50-95": value, "mAP50": min(1, 2 * value)}]
    sizes = {"limits_px": [12.0, 19.0], "all": value, "small": value / 2, "medium": value, "large": value}
    facts = {"parameters": 2_707_430, "seconds": 90, "date": "2026-01-01", "revision": "abc", "machine": {"cpu": "CPU"}}
    versions = {"python": "3.12", "torch": "2.9", "ultralytics": "8.4"}
    offsets = {"11": {"mean": 0.02, "p99": 0.05, "spread": 0.01, "largest": 0.1}} if "dysample" in arm else {}
    return {
        "arm": arm, "seed": seed, "epochs": epochs, "sizes": sizes, "offsets": offsets, "versions": versions,
        **DIGEST, **facts, **more,
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """Records of five pairs: DySample gains 0.01 to 0.05, bilinear nothing."""
    about = {"model": "yolov10n.yaml", "data": "d.yaml", "settings": {"epochs": 2}, "warm_start": None}
    compare.write(tmp_path / "comparison.json", about)
    for seed in range(5):
        stock = 0.30 + 0.02 * seed
        values = {"nearest": stock, "bilinear": stock + 0.01 * (-1) ** seed, "dysample": stock + 0.01 * (seed + 1)}
        for arm, value in values.items():
            compare.write(tmp_path / "records" / f"{arm}-seed{seed}.json", record(value, seed, arm))
    return tmp_path


# What is compared.


def test_the_nearest_arm_is_the_stock_model():
    assert compare.with_arm(STOCK, compare.arm("nearest")) == STOCK


def test_the_bilinear_arm_differs_in_the_mode_alone():
    text = yaml.safe_dump(STOCK)
    assert text.count("nearest") == 2
    changed = compare.with_arm(STOCK, compare.arm("bilinear"))
    assert yaml.safe_dump(changed) == text.replace("nearest", "bilinear")
    assert yaml.safe_dump(STOCK) == text


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("dysample", [2, "lp", 4]),
        ("dysample+", [2, "lp", 4, True]),
        ("dysample-s", [2, "pl", 8]),
        ("dysample-s+:init=nearest", [2, "pl", 8, True, "nearest"]),
        ("dysample:groups=8:init=nearest", [2, "lp", 8, False, "nearest"]),
    ],
)
def test_a_dysample_arm_is_its_variant_with_its_own_settings(text, arguments):
    rows = compare.with_arm(STOCK, compare.arm(text))["head"]
    assert [row[3] for row in rows if row[2] == "DySample"] == [arguments] * 2


def test_an_arm_may_swap_one_row():
    model = compare.with_arm(STOCK, compare.arm("dysample:rows=14"))
    assert [row[2] for row in [*model["backbone"], *model["head"]]].index("DySample") == 14
    assert compare.upsampling_rows(model) == [11]


def test_a_run_that_starts_otherwise_than_its_pair_stops(tmp_path):
    one, other = (
        compare.Run(arm, 3, "yolov10n.yaml", False, "d.yaml", {}, "cpu", 1, str(tmp_path))
        for arm in ("nearest", "dysample")
    )
    assert compare.same_as_its_pair(one, "weights", "a" * 64) == compare.same_as_its_pair(other, "weights", "a" * 64)
    with pytest.raises(RuntimeError, match=r"seed 3: weights of dysample is not that of nearest"):
        compare.same_as_its_pair(other, "weights", "b" * 64)
    compare.same_as_its_pair(one._replace(seed=4), "weights", "b" * 64)


def test_a_folder_keeps_to_one_recipe(tmp_path):
    first = compare.Comparison("yolov10n.yaml", "d.yaml", {"epochs": 3}, None)
    compare.agree(tmp_path, first)
    compare.agree(tmp_path, first)
    with pytest.raises(ValueError, match=r"settings was \{'epochs': 3\}, now \{'epochs': 4\}.*name another --out"):
        compare.agree(tmp_path, first._replace(settings={"epochs": 4}))
    assert json.loads((tmp_path / "comparison.json").read_text())["settings"] == {"epochs": 3}


# What is measured of a run.


class Perfect:
    """A detector that finds the boxes it is given, with certainty."""

    def __init__(self, truth, names, keep):
        self.found = [
            {"image_id": names[box["image_id"]], "category_id": box["category_id"], "bbox": box["bbox"], "score": 0.9}
            for box in truth["annotations"]
            if keep(box["area"])
        ]

    def add_callback(self, name, function):
        self.function = function

    def val(self, **_):
        self.jdict = self.found
        self.function(self)


def test_precision_by_size_is_one_for_what_is_found_and_less_where_it_is_not(digits, tmp_path):
    truth, numbers, files = compare.ground_truth(str(digits))
    labels = [line for file in (digits.parent / "labels/val").glob("*.txt") for line in file.read_text().splitlines()]
    assert len(truth["annotations"]) == len(labels)
    assert len(truth["images"]) == len(files) == 8
    names = {number: stem for stem, number in numbers.items()}
    given = compare.Run("nearest", 0, "", False, str(digits), {"imgsz": 64}, "cpu", 1, str(tmp_path))

    all_found = compare.by_size(Perfect(truth, names, lambda area: True), given, truth, numbers)
    assert [all_found[name] for name in ("all", *compare.SIZES)] == [1, 1, 1, 1]

    low, high = (limit**2 for limit in all_found["limits_px"])
    areas = np.array([box["area"] for box in truth["annotations"]])
    assert (areas < low).mean() == pytest.approx(1 / 3, abs=0.1)
    assert (areas > high).mean() == pytest.approx(1 / 3, abs=0.1)
    without = compare.by_size(Perfect(truth, names, lambda area: area >= high - 1), given, truth, numbers)
    assert without["small"] == 0
    assert without["medium"] < 0.4
    assert without["large"] == 1


def test_learnt_offsets_are_those_of_the_layers(digits, tmp_path):
    import torch
    from ultralytics import YOLO

    model = YOLO("yolov10n-dysample.yaml")
    for layer in compare.dysample_layers(model.model).values():
        torch.nn.init.zeros_(layer.offset.weight)
        x_of_a_group = layer.offset.bias.detach().unflatten(0, (2, 4, 4))
        x_of_a_group[0], x_of_a_group[1] = 4 * 0.3, 4 * -0.4
        layer.offset.bias.data = x_of_a_group.flatten()
    files = compare.ground_truth(str(digits))[2][:3]
    given = compare.Run("dysample", 0, "", False, str(digits), {"imgsz": 64}, "cpu", 1, str(tmp_path))
    found = compare.learnt_offsets(model, given, files)
    assert list(found) == ["11", "14"]
    for layer in found.values():
        assert layer["mean"] == pytest.approx(0.5, abs=1e-6)
        assert layer["spread"] == pytest.approx(0, abs=1e-6)


# What the report says.


def test_paired_differences_have_student_s_interval_and_the_exact_sign_flip_p(folder):
    found = compare_report.paired(compare_report.load(folder), "dysample", "nearest")
    assert found["differences"] == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.05])
    # Of 1, 2, 3, 4, 5: mean 3, standard error 1 / sqrt(2), and Student's t for 4 degrees of freedom is 2.776.
    assert found["interval"] == pytest.approx([0.03 - 0.02776 / 2**0.5, 0.03 + 0.02776 / 2**0.5], abs=1e-5)
    assert found["p"] == pytest.approx(2 / 2**5)


def test_seeds_without_a_partner_are_left_out_of_pairs(folder):
    (folder / "records/nearest-seed4.json").unlink()
    found = compare_report.paired(compare_report.load(folder), "dysample", "nearest")
    assert found["seeds"] == [0, 1, 2, 3]


def test_a_gain_is_claimed_only_where_the_interval_lies_above_zero(folder):
    records = compare_report.load(folder)
    assert compare_report.clear(compare_report.paired(records, "dysample", "nearest"))
    assert not compare_report.clear(compare_report.paired(records, "bilinear", "nearest"))
    assert "dysample is better than nearest and bilinear" in compare_report.verdict(records)
    for seed in (0, 1):
        stock = records["nearest"][seed]["epochs"][-1]["mAP50-95"]
        compare.write(folder / "records" / f"dysample-seed{seed}.json", record(stock - 0.05, seed, "dysample"))
    assert "dysample is not shown to be better than nearest or bilinear" in compare_report.verdict(
        compare_report.load(folder)
    )


def test_the_last_epoch_counts_not_the_best(folder):
    runs = compare_report.load(folder)["nearest"]
    runs[0]["epochs"][0]["mAP50-95"] = 0.99
    assert compare_report.last(runs[0]) == 0.30


def test_records_that_are_no_pairs_are_not_reported(folder):
    compare.write(folder / "records/dysample-seed2.json", record(0.4, 2, "dysample", data="other"))
    with pytest.raises(SystemExit, match=r"seed 2 in .* no pairs"):
        compare_report.load(folder)


def test_the_report_and_its_plot_show_every_arm(folder):
    text = compare_report.report(folder)
    assert "| dysample | 5 | 0.370 ± 0.047 | **+0.030 [+0.010, +0.050]**, p = 0.062 |" in text
    assert compare_report.plot(folder).read_bytes().startswith(b"\x89PNG")


# The command.


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "the following arguments are required: --data"),
        (["--data", "d.yaml", "--arms", "nearest,dysampel"], "an arm must be one of nearest, bilinear, dysample"),
        (["--data", "d.yaml", "--arms", "nearest:init=nearest"], "an arm of DySample may have :init="),
        (["--data", "d.yaml", "--arms", "dysample:init=cubic"], "an arm of DySample may have :init="),
        (
            ["--data", "d.yaml", "--arms", "dysample:groups=7"],
            "dysample:groups=7: DySample, row 11 of yolov10n.yaml: groups must be",
        ),
        (["--data", "d.yaml", "--arms", "dysample:rows=12"], "row 12 of yolov10n.yaml is Concat, not nn.Upsample"),
        (["--data", "d.yaml", "--seeds", "4-1"], "must be whole numbers or ranges"),
        (["--data", "d.yaml", "--device", "7"], "must be cpu, or indices of this machine's"),
        (["--data", "d.yaml", "--workers", "0"], "must be a whole number"),
        (["--data", "d.yaml", "--warm-start", "no.pt"], "--warm-start must be a weights file, got 'no.pt'"),
        (["--data", "d.yaml", "--model", "no.yaml"], "--model must be a model YAML that upsamples, got 'no.yaml'"),
        (["--data", "d.yaml", "--model", "yolov8n-cls.yaml"], "yolov8n-cls.yaml"),
        (["--data", "no-such-data.yaml"], "no-such-data.yaml"),
        (["--data", "d.yaml", "seed=3"], "seed is set by the comparison, or an option of it"),
        (["--data", "d.yaml", "epoch=3"], "'epoch=3' is no training setting of Ultralytics"),
        (["--data", "d.yaml", "epochs=many"], "'epochs=many' is no training setting of Ultralytics"),
        (["--data", "d.yaml", "epochs"], "a training setting is written key=value"),
    ],
)
def test_bad_input_gets_one_line_and_writes_nothing(arguments, says, digits, tmp_path, capsys):
    arguments = [str(digits) if part == "d.yaml" else part for part in arguments]
    with pytest.raises(SystemExit) as stopped:
        compare.main([*arguments, "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("compare.py: "))
    assert says in line
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_killed_comparison_goes_on_where_it_was_and_a_finished_run_is_not_repeated(digits, tmp_path):
    command = [
        *(sys.executable, ROOT / "scripts/compare.py", "--data", digits, "--arms", "nearest,dysample:init=nearest"),
        *("--seeds", "5", "--workers", "1", "--out", tmp_path, "epochs=2", "imgsz=64", "batch=8"),
    ]
    records = {arm: tmp_path / f"records/{arm}-seed5.json" for arm in ("nearest", "dysample,init=nearest")}
    process = subprocess.Popen(command, cwd=tmp_path, env=clean_environ(), start_new_session=True)
    deadline = time.monotonic() + 300
    while not (tmp_path / "unfinished/dysample,init=nearest-seed5").is_dir():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert [file.is_file() for file in records.values()] == [True, False]
    before = records["nearest"].read_bytes()

    twin = subprocess.Popen(command, cwd=tmp_path, env=clean_environ(), stdout=subprocess.DEVNULL)
    printed = run(*command, cwd=tmp_path)
    assert twin.wait() == 0, "two at once share the work"
    assert "2 runs, 1 of them finished before" in printed
    assert records["nearest"].read_bytes() == before
    found = [json.loads(file.read_text()) for file in records.values()]
    assert found[0]["start"] == found[1]["start"]
    assert found[0]["data"] == found[1]["data"]
    assert [len(one["epochs"]) for one in found] == [2, 2]
    assert found[1]["parameters"] - found[0]["parameters"] == 12_352
    assert set(found[1]["offsets"]) == {"11", "14"}
    assert not any(path.is_dir() for path in (tmp_path / "unfinished").iterdir())
    assert re.search(r"\| dysample:init=nearest \| 1 \|", printed)

    assert "2 runs, 2 of them finished before" in run(*command, cwd=tmp_path)


@pytest.mark.slow
def test_a_warm_start_begins_where_the_weights_are(digits, tmp_path):
    options = ["--data", digits, "--seeds", "0", "--workers", "1", "epochs=1", "imgsz=64", "batch=8"]
    run(sys.executable, ROOT / "scripts/compare.py", *options, "--arms", "nearest", "--out", "stock", cwd=tmp_path)
    weights = tmp_path / "stock/weights/nearest-seed0.pt"
    arms = ("--arms", "nearest,dysample:init=nearest", "--warm-start", weights, "--out", "warm")
    run(sys.executable, ROOT / "scripts/compare.py", *options, *arms, cwd=tmp_path)
    before = [json.loads(file.read_text())["before"] for file in sorted(Path(tmp_path, "warm/records").iterdir())]
    assert len(before) == 2
    assert before[0]["mAP50-95"] == pytest.approx(before[1]["mAP50-95"], abs=5e-5)


# The committed evidence.


def test_the_committed_reports_are_what_the_records_give():
    folders = sorted(file.parent for file in (ROOT / "results").rglob("comparison.json"))
    assert folders
    for folder in folders:
        told = "run: python scripts/compare_report.py results/compare/*"
        assert compare_report.report(folder) == (folder / "report.md").read_text(), told


def test_the_readme_has_what_the_records_give(monkeypatch):
    monkeypatch.chdir(ROOT)
    readme = Path("README.md").read_text()
    folders = [Path("results/compare") / name for name in compare_report.TITLES]
    given = compare_report.section(folders)
    assert compare_report.between(readme, compare_report.BEGIN, compare_report.END, given) == readme, "make compare"


def test_the_readme_claims_no_gain_that_the_records_do_not_show():
    won = [
        f"{name}: {arm}"
        for name in ("scratch", "warm", "confirm")
        for records in [compare_report.load(ROOT / "results/compare" / name)]
        for arm in records
        if all(compare_report.clear(compare_report.paired(records, arm, base)) for base in ("nearest", "bilinear"))
    ]
    assert ("**Not measurably, on the data made here.**" in (ROOT / "README.md").read_text()) is (not won)
