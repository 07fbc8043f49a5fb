"""What scripts/make_trees.py promises about the data set it makes and the folders it finds, and scripts/wheels.py about
what it downloads; nothing here may train, or write outside the temporary folders of pytest and the user's cache folder.
"""

from __future__ import annotations

import doctest
import hashlib
import io
import itertools
import os
import re
import subprocess
import sys
import zipfile
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from scripts import half_engine, make_digits, make_trees, precision, precision_report, timings, wheels
from scripts.dataset_folder import Dataset, encode_png
from tests.conftest import ROOT, clean_environ, run

# Plots small enough for tests, of the shapes of the real ones: sides that no stride divides, and one below a tile's.
SIDES = {"528000": (150, 97), "541000": (97, 110), "OSBS_029": (70, 64), "SOAP_061": (40, 50)}
SMALL = {"imgsz": 64, "stride": 48}


def voc(boxes: list[list[int]]) -> str:
    """A Pascal VOC annotation."""
    objects = "".join(
        f"<object><name>{'Alive' if i % 2 else 'Tree'}</name><bndbox>"
        f"<xmin>{x}</xmin><ymin>{y}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
        for i, (x, y, right, bottom) in enumerate(boxes)
    )
    return f"<annotation><size><width>1</width></size>{objects}</annotation>"


def small_plots() -> dict[str, make_trees.Plot]:
    """Plots of noise in which each tree is a bright patch, so that boxes can be checked against the pixels."""
    rng = np.random.default_rng(3)
    plots = {}
    for name, (w, h) in SIDES.items():
        image = rng.integers(0, 60, (h, w, 3), np.uint8)
        # One free cell round each tree: no two touch, and a tree is known by its pixels.
        corners = [(x, y) for y in range(1, h - 12, 14) for x in range(1, w - 12, 14)]
        boxes = [[x, y, x + int(rng.integers(5, 12)), y + int(rng.integers(5, 12))] for x, y in corners]
        for left, top, right, bottom in boxes:
            image[top:bottom, left:right] += 150
        plots[name] = make_trees.Plot(name, image, np.array(boxes))
    return plots


PLOTS = small_plots()


def small_wheel() -> bytes:
    """A file of the real wheel's layout, with the small plots in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(make_trees.LICENSE, "MIT License")
        for name, plot in PLOTS.items():
            stem = f"deepforest/data/{make_trees.PLOTS[name]}"
            archive.writestr(f"{stem}.png", encode_png(plot.image))
            archive.writestr(f"{stem}.xml", voc(plot.boxes.tolist()))
    return buffer.getvalue()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """The cache folder, empty, inside pytest's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "yolov10_dysample"


@pytest.fixture
def pinned(cache, monkeypatch) -> wheels.Wheel:
    """The small wheel in place of the real one, in the cache as after a download."""
    data = small_wheel()
    wheel = wheels.Wheel("deepforest", "2.1.0", hashlib.sha256(data).hexdigest(), 1)
    monkeypatch.setattr(make_trees, "DEEPFOREST", wheel)
    cache.mkdir(parents=True)
    (cache / wheel.file).write_bytes(data)
    return wheel


def contents(folder: Path) -> dict[str, str]:
    """Hash of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def labels(dataset: Dataset, imgsz: int) -> dict[str, list[list[int]]]:
    """Label files as pixels: left, top, width, height."""
    found = {}
    for path in sorted(dataset.root.glob("labels/*/*.txt")):
        rows = np.array([line.split() for line in path.read_text().splitlines()], float).reshape(-1, 5)
        assert not rows[:, 0].any()
        corners = np.hstack([rows[:, 1:3] - rows[:, 3:] / 2, rows[:, 3:]]) * imgsz
        assert corners == pytest.approx(corners.round(), abs=1e-3)
        found[f"{path.parent.name}/{path.stem}"] = corners.round().astype(int).tolist()
    return found


def trees_of(dataset: Dataset) -> dict[str, set[tuple[str, str]]]:
    """Plot and number of every tree that a split shows."""
    shown = defaultdict(set)
    for row in dataset.manifest():
        shown[row["split"]].add((row["plot"], row["tree"]))
    return shown


@pytest.mark.parametrize(
    ("box", "cut"),
    [
        ([110, 210, 130, 230], [10, 10, 30, 30]),  # inside
        ([100, 200, 164, 264], [0, 0, 64, 64]),  # the whole tile
        ([90, 210, 110, 230], [0, 10, 10, 30]),  # half of it inside
        ([89, 210, 109, 230], None),  # 9 of 20 px inside
        ([154, 254, 168, 268], [54, 54, 64, 64]),  # 10 x 10 of 14 x 14 px inside: 51 %
        ([155, 254, 168, 268], None),  # 9 x 10 of 13 x 14 px inside: 49 %
        ([60, 210, 100, 230], None),  # touches the edge from outside
        ([0, 0, 500, 500], None),  # larger than two tiles
    ],
)
def test_a_box_stays_if_half_of_its_area_is_inside_and_is_cut_at_the_edge(box, cut):
    other = [120, 220, 125, 225]
    rows, kept = make_trees.cut_boxes(np.array([other, box, other]), left=100, top=200, imgsz=64)
    expected = {0: [20, 20, 25, 25], 1: cut, 2: [20, 20, 25, 25]}
    assert dict(zip(rows.tolist(), kept.tolist(), strict=True)) == {k: v for k, v in expected.items() if v}


@pytest.mark.parametrize("length", [20, 64, 65, 150, 160, 161])
@pytest.mark.parametrize("stride", [1, 31, 48, 64])
def test_tiles_reach_both_edges_and_leave_nothing_out(length, stride):
    starts = make_trees.tile_starts(length, 64, stride)
    assert starts[0] == 0
    assert starts[-1] == max(0, length - 64)
    assert {start + pixel for start in starts for pixel in range(64)} >= set(range(length))
    assert all(a < b <= a + stride for a, b in itertools.pairwise(starts))


def test_every_object_of_an_annotation_is_a_tree_and_none_gives_no_boxes():
    boxes = [[1, 2, 30, 40], [5, 6, 7, 8]]
    assert make_trees.read_boxes(voc(boxes).encode()).tolist() == boxes
    assert make_trees.read_boxes(voc([]).encode()).shape == (0, 4)


@pytest.mark.parametrize("imgsz", [32, 64, 96])
def test_boxes_sit_on_the_pixels_of_their_trees(pinned, tmp_path, imgsz):
    dataset = make_trees.make_trees(tmp_path / "trees", imgsz=imgsz)
    seen = 0
    for name, boxes in labels(dataset, imgsz).items():
        image = cv2.imread(str(dataset.root / "images" / f"{name}.png"))
        assert image.shape == (imgsz, imgsz, 3)
        bright = image.min(2) >= 150
        for x, y, w, h in boxes:
            assert bright[y : y + h, x : x + w].all()
            around = np.pad(bright, 1)[y : y + h + 2, x : x + w + 2]
            assert around.sum() == w * h
            seen += 1
    assert seen > 100


def test_the_rest_of_a_tile_beyond_a_small_plot_is_grey(pinned, tmp_path):
    dataset = make_trees.make_trees(tmp_path / "trees", **SMALL)
    (path,) = dataset.root.glob("images/test/SOAP_061*.png")
    image = cv2.imread(str(path))
    w, h = SIDES["SOAP_061"]
    assert (image[:h, :w] == PLOTS["SOAP_061"].image[..., ::-1]).all()
    assert (image[h:] == 114).all()
    assert (image[:, w:] == 114).all()


@pytest.mark.parametrize(("val", "train"), [("541000", "528000"), ("528000", "541000")])
def test_no_tree_is_in_two_splits_and_every_tree_is_in_one(pinned, tmp_path, val, train):
    shown = trees_of(make_trees.make_trees(tmp_path / "trees", **SMALL, val=val))
    every = {name: {(name, str(tree)) for tree in range(len(plot.boxes))} for name, plot in PLOTS.items()}
    assert {split: {plot for plot, _ in trees} for split, trees in shown.items()} == {
        "train": {train},
        "val": {val},
        "test": {"OSBS_029", "SOAP_061"},
    }
    # A quarter of a tile of overlap is more than any tree is wide, so training sees each one.
    assert shown["train"] == every[train]


def test_the_manifest_says_what_the_label_files_say(pinned, tmp_path):
    dataset = make_trees.make_trees(tmp_path / "trees", **SMALL)
    listed = {name: [] for name in labels(dataset, 64)}
    for row in dataset.manifest():
        listed[f"{row['split']}/{row['image']}"].append([int(row[key]) for key in "xywh"])
    assert listed == labels(dataset, 64)
    images = {f"{path.parent.name}/{path.stem}" for path in dataset.root.glob("images/*/*.png")}
    assert images == set(listed)


def test_the_same_arguments_give_the_same_bytes_and_others_do_not(pinned, tmp_path):
    one, same, other = (
        contents(make_trees.make_trees(tmp_path / name, imgsz=64, stride=stride).root)
        for name, stride in (("a", 48), ("b", 48), ("c", 40))
    )
    assert {name for name in one if one[name] != same[name]} == {"data.yaml"}  # it names its folder
    assert one.keys() == same.keys()
    assert other["trees.csv"] != one["trees.csv"]


def test_the_data_set_names_its_source_and_licence_and_ultralytics_reads_its_splits(pinned, tmp_path):
    dataset = make_trees.make_trees(tmp_path / "trees", **SMALL)
    text = (dataset.root / "README.md").read_text()
    for promise in ("National Ecological Observatory Network", "DeepForest", "MIT", pinned.sha256, "half of its area"):
        assert promise in text
    assert (dataset.root / "LICENSE").read_text() == "MIT License"
    data = yaml.safe_load(dataset.data.read_text())
    assert data["names"] == {0: "tree"}
    for split in ("train", "val", "test"):
        assert list((Path(data["path"]) / data[split]).glob("*.png"))


WRONG = [
    ({"val": "OSBS_029"}, r"val must be one of 528000, 541000, got 'OSBS_029'; write val=541000"),
    ({"imgsz": 31}, r"imgsz must be a whole number of at least 32, got 31; write imgsz=32 or more"),
    ({"stride": 0}, r"stride must be a whole number of at least 1, got 0; write stride=1 or more"),
    ({"val_stride": 321}, r"val_stride must not exceed imgsz.* got val_stride=321 and imgsz=320; write val_stride=320"),
]


def test_a_size_that_is_no_number_is_refused_as_such(tmp_path):
    with pytest.raises(ValueError, match="imgsz must be a whole number of at least 32, got '320'"):
        make_trees.make_trees(tmp_path / "trees", imgsz="320")


@pytest.mark.parametrize(("wrong", "message"), WRONG)
def test_a_wrong_argument_is_refused_in_one_line_and_nothing_is_written(tmp_path, cache, capsys, wrong, message):
    with pytest.raises(ValueError, match=message):
        make_trees.make_trees(tmp_path / "trees", **wrong)
    options = [f"--{name.replace('_', '-')}={value}" for name, value in wrong.items()]
    with pytest.raises(SystemExit, match="2"):
        make_trees.main([f"--out={tmp_path / 'trees'}", *options])
    assert re.search(rf"error: {message}.*\n\Z", capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    "files",
    [
        {},
        {"thesis.txt": "years"},
        {"trees.json": "[]"},
        {"trees.json": '{"files": []}'},
        {"trees.json": '{"made_by": "make_trees 1", "files": null}'},
    ],
)
def test_a_folder_of_someone_else_is_left_untouched(pinned, tmp_path, files, force):
    out = tmp_path / "trees"
    out.mkdir()
    for name, text in files.items():
        (out / name).write_text(text)
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match=r"out must be new or a folder that make_trees wrote.*write another out"):
        make_trees.make_trees(out, **SMALL, force=force)
    assert contents(tmp_path) == before


def test_a_data_set_with_the_same_arguments_is_kept_and_its_path_follows_a_move(pinned, tmp_path):
    made = make_trees.make_trees(tmp_path / "trees", **SMALL)
    before = contents(made.root)
    assert not make_trees.make_trees(made.root, **SMALL).made
    assert contents(made.root) == before
    moved = made.root.rename(tmp_path / "moved")
    assert not make_trees.make_trees(moved, **SMALL).made
    assert yaml.safe_load((moved / "data.yaml").read_text())["path"] == moved.as_posix()


def test_other_arguments_need_force_and_then_replace_the_data_set_and_its_caches(pinned, tmp_path):
    made = make_trees.make_trees(tmp_path / "trees", **SMALL)
    (made.root / "labels" / "train.cache").write_text("written by Ultralytics")
    before = contents(made.root)
    with pytest.raises(FileExistsError, match=r"made with stride=48 \(now 40\); add force=True \(--force\)"):
        make_trees.make_trees(made.root, imgsz=64, stride=40)
    assert contents(made.root) == before
    make_trees.make_trees(made.root, imgsz=64, stride=40, force=True)
    fresh = make_trees.make_trees(tmp_path / "fresh", imgsz=64, stride=40)
    assert contents(made.root).keys() == contents(fresh.root).keys()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "fresh", "trees"]


@pytest.mark.parametrize("name", ["notes.txt", "images/train/holiday.png", "runs/best.pt"])
def test_force_does_not_lose_a_file_that_a_user_added(pinned, tmp_path, name):
    root = make_trees.make_trees(tmp_path / "trees", **SMALL).root
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text("mine")
    before = contents(root)
    with pytest.raises(FileExistsError, match=rf"also holds 1 other \({name}\)"):
        make_trees.make_trees(root, **SMALL, force=True)
    assert contents(root) == before


def test_a_data_set_with_missing_files_is_not_taken_for_whole(pinned, tmp_path):
    root = make_trees.make_trees(tmp_path / "trees", **SMALL).root
    (root / "images/test/SOAP_061_x0000_y0000.png").unlink()
    with pytest.raises(FileExistsError, match=r"lacks 1 of \d+ \(images/test/SOAP_061.*\); add force=True"):
        make_trees.make_trees(root, **SMALL)
    assert make_trees.make_trees(root, **SMALL, force=True).made


@pytest.mark.parametrize("existing", [False, True])
def test_an_interrupted_run_leaves_what_was_there_and_nothing_else(pinned, tmp_path, monkeypatch, existing):
    if existing:
        make_trees.make_trees(tmp_path / "trees", **SMALL)
    before = contents(tmp_path)
    done = []

    def interrupt(boxes, imgsz):
        done.append(imgsz)
        if len(done) == 3:
            raise KeyboardInterrupt
        return ""

    monkeypatch.setattr(make_trees, "label_lines", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_trees.make_trees(tmp_path / "trees", imgsz=64, force=True)
    assert contents(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", *["trees"] * existing]


# The wheel.


def test_a_cached_wheel_with_another_hash_is_refused_and_nothing_is_written(pinned, cache, tmp_path, capsys):
    broken = cache / pinned.file
    broken.write_bytes(broken.read_bytes()[:-1])
    before = contents(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        make_trees.main([f"--out={tmp_path / 'trees'}"])
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.search(rf"{pinned.file} must have SHA-256 {pinned.sha256}, got [0-9a-f]{{64}}; delete {broken}", error)
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_a_downloaded_wheel_with_another_hash_is_refused_and_not_kept(cache, tmp_path, monkeypatch):
    index = tmp_path / "index"
    index.mkdir()
    wheel = wheels.Wheel("deepforest", "2.1.0", "0" * 64, 1)
    (index / wheel.file).write_bytes(installable(wheel))
    offline(monkeypatch, find_links=index)
    with pytest.raises(ValueError, match=rf"must have SHA-256 0{{64}}, got .*put the right one at .*{wheel.file}"):
        wheels.fetch(wheel)
    assert not cache.exists()


def test_a_wheel_is_downloaded_once_and_kept(cache, tmp_path, monkeypatch):
    index = tmp_path / "index"
    index.mkdir()
    bare = wheels.Wheel("deepforest", "2.1.0", "", 1)
    wheel = bare._replace(sha256=hashlib.sha256(installable(bare)).hexdigest())
    (index / wheel.file).write_bytes(installable(wheel))
    offline(monkeypatch, find_links=index)
    assert wheels.fetch(wheel) == cache / wheel.file
    (index / wheel.file).unlink()
    assert wheels.fetch(wheel) == cache / wheel.file
    assert [path.name for path in cache.iterdir()] == [wheel.file]


def test_without_a_network_the_command_says_which_file_to_put_where(cache, tmp_path):
    env = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "XDG_CACHE_HOME": str(cache.parent)}
    printed = run(sys.executable, "-m", "scripts.make_trees", "--out", tmp_path / "trees", cwd=ROOT, env=env, ok=False)
    file = make_trees.DEEPFOREST.file
    assert re.search(
        rf"error: pip must be able to download deepforest==2.1.0, got: ERROR: No matching .*; download {file} from "
        rf"https://pypi.org/project/deepforest/2.1.0/#files elsewhere and put it at {cache / file}\n\Z",
        printed,
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_without_pip_the_error_says_the_same(cache, tmp_path):
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    code = "from scripts.wheels import *; fetch(Wheel('deepforest', '2.1.0', '', 20))"
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    printed = run(python, "-c", code, cwd=ROOT, env={"XDG_CACHE_HOME": str(cache.parent)}, ok=False)
    assert re.search(r"got: .*No module named pip; download deepforest-2.1.0\S+ from .* and put it at ", printed)


@pytest.mark.parametrize("value", ["", "relative/folder"])
def test_a_cache_home_that_is_no_absolute_path_counts_as_not_set(monkeypatch, tmp_path, value):
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert wheels.cache_folder() == tmp_path / ".cache" / "yolov10_dysample"


def installable(wheel: wheels.Wheel) -> bytes:
    """The least that pip takes for the wheel of a project, the same bytes every time."""
    info = f"{wheel.project}-{wheel.version}.dist-info"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {wheel.project}\nVersion: {wheel.version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return buffer.getvalue()


def offline(monkeypatch: pytest.MonkeyPatch, find_links: Path) -> None:
    """Have pip look in one folder and nowhere else."""
    for name, value in {"CONFIG_FILE": os.devnull, "NO_INDEX": "1", "FIND_LINKS": find_links.as_uri()}.items():
        monkeypatch.setenv(f"PIP_{name}", value)


@pytest.mark.parametrize(
    "module",
    [half_engine, make_digits, make_trees, precision, precision_report, timings, wheels],
    ids=lambda module: module.__name__,
)
def test_the_examples_in_the_documentation_run(module):
    results = doctest.testmod(module)
    assert results.attempted
    assert not results.failed


# The real photographs.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("val", "images", "trees"),
    [
        ("541000", {"train": 100, "val": 16, "test": 8}, {"train": 574, "val": 279, "test": 98}),
        ("528000", {"train": 20, "val": 64, "test": 8}, {"train": 279, "val": 574, "test": 98}),
    ],
)
def test_the_command_makes_the_data_set_of_the_real_wheel(tmp_path, val, images, trees):
    command = [sys.executable, "-m", "scripts.make_trees", "--out", str(tmp_path / "trees"), "--val", val]
    done = subprocess.run(command, cwd=ROOT, env=clean_environ(), text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    dataset = Dataset(tmp_path / "trees", "trees", made=True)
    shown = trees_of(dataset)
    for split, count in images.items():
        assert len(list(dataset.root.glob(f"images/{split}/*.png"))) == count
        assert f"{count} images" in done.stdout
        # A tree can be halved by the edge between two tiles of val, and be shown in neither.
        assert 0.98 * trees[split] <= len(shown[split]) <= trees[split]
    assert len(shown["train"]) == trees["train"]
    assert f"data={dataset.data}" in done.stdout
    again = run(*command, cwd=ROOT)
    assert again.startswith("already there, made with the same arguments; nothing to do")
