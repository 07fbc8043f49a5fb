"""What scripts/make_digits.py promises about the data set it makes and about the folders it finds; nothing here may
train, download or write outside the temporary folders of pytest.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from sklearn.datasets import load_digits

from scripts import make_digits
from tests.conftest import ROOT

DIGITS = load_digits()
SMALL = {"train": 4, "val": 2, "imgsz": 64}


def contents(folder: Path) -> dict[str, str]:
    """Hash of every file below a folder, and its links and empty folders by name."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }


def samples(contents: dict[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in contents.items() if name.startswith(("images/", "labels/"))}


def labels(root: Path, imgsz: int) -> dict[str, list[tuple[int, int, int, int, int]]]:
    """Label files as pixels: class, left, top, width, height; a number that is not a whole pixel fails."""
    found = {}
    for path in sorted(root.glob("labels/*/*.txt")):
        found[f"{path.parent.name}/{path.stem}"] = boxes = []
        for line in path.read_text().splitlines():
            label, *numbers = line.split()
            x, y, w, h = (float(number) * imgsz for number in numbers)
            exact = np.array([x - w / 2, y - h / 2, w, h])
            assert exact == pytest.approx(np.rint(exact), abs=1e-3)
            boxes.append((int(label), *np.rint(exact).astype(int).tolist()))
    return found


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """60 images in 10 classes: enough for every digit to turn up on both sides."""
    return make_digits.make_digits(tmp_path_factory.mktemp("data") / "digits", train=40, val=20, imgsz=96, classes=10)


@pytest.fixture
def small(tmp_path):
    return make_digits.make_digits(tmp_path / "digits", **SMALL)


@pytest.fixture(scope="module")
def sources():
    return make_digits.load_sources()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_ones(tmp_path):
    one, same, other = (
        make_digits.make_digits(tmp_path / n, **SMALL, seed=s).root for n, s in (("a", 5), ("b", 5), ("c", 6))
    )
    one, same, other = contents(one), contents(same), contents(other)
    assert len(samples(one)) == 16  # 6 images, 6 label files, 4 folders
    assert {name for name in one if one[name] != same[name]} == {"data.yaml"}  # it names its folder
    assert not {d for n, d in samples(one).items() if d} & {d for n, d in samples(other).items() if d}


def test_seed_split_and_index_each_give_another_background_and_other_places(sources):
    keys = list(itertools.product((0, 1), ("train", "val"), range(5)))
    scenes = [
        make_digits.compose_scene(sources, np.arange(9), s, i, make_digits.Recipe(seed=seed)) for seed, s, i in keys
    ]
    assert len({scene.background.tobytes() for scene in scenes}) == len(keys)
    assert len({(scene.boxes[0].x, scene.boxes[0].y) for scene in scenes}) == len(keys)


def test_an_image_does_not_depend_on_how_many_there_are_or_on_the_classes(small, tmp_path):
    more = make_digits.make_digits(tmp_path / "more", train=6, val=3, imgsz=64, classes=10)
    few, many = contents(small.root), contents(more.root)
    images = [name for name in few if name.endswith(".png") and name.startswith("images/")]
    assert len(images) == 6
    assert all(few[name] == many[name] for name in images)


def test_no_digit_is_in_both_splits(dataset):
    used = defaultdict(set)
    for row in dataset.manifest():
        used[row["split"]].add(int(row["digit"]))
    assert min(len(used["train"]), len(used["val"])) > 40
    assert not used["train"] & used["val"]
    pixels = {split: {DIGITS.images[digit].tobytes() for digit in digits} for split, digits in used.items()}
    assert not pixels["train"] & pixels["val"]


@pytest.mark.parametrize("seed", [0, 7])
def test_the_split_takes_every_digit_once_and_a_fifth_of_each_value_for_val(seed):
    values = DIGITS.target
    split = make_digits.split_digits(values, seed)
    assert sorted(np.concatenate([split["train"], split["val"]])) == list(range(len(values)))
    for value, count in Counter(values.tolist()).items():
        assert (values[split["val"]] == value).sum() == pytest.approx(count / 5, abs=0.5)


def test_no_column_of_a_photograph_is_in_both_splits(sources):
    left_third_dark = np.full((427, 640, 3), 200, np.uint8)
    left_third_dark[:, :213] = 30
    marked = sources._replace(photos=[left_third_dark])
    recipe = make_digits.Recipe(imgsz=64)
    seen = {
        split: {
            int(grey)
            for index in range(40)
            for grey in np.unique(make_digits.compose_scene(marked, np.arange(50), split, index, recipe).background)
        }
        for split in ("train", "val")
    }
    assert seen == {"train": {200}, "val": {30}}


def test_the_manifest_says_what_the_label_files_say(dataset):
    listed = defaultdict(list)
    for row in dataset.manifest():
        assert DIGITS.target[int(row["digit"])] == int(row["value"])
        listed[f"{row['split']}/{row['image']}"].append(tuple(int(row[key]) for key in ("value", "x", "y", "w", "h")))
    assert listed == labels(dataset.root, 96)


def test_every_image_has_a_label_file_with_one_to_max_digits_boxes(dataset):
    images = {f"{path.parent.name}/{path.stem}" for path in dataset.root.glob("images/*/*.png")}
    counts = {name: len(boxes) for name, boxes in labels(dataset.root, 96).items()}
    assert images == set(counts)
    assert len(images) == 60
    assert set(counts.values()) == {1, 2, 3, 4, 5, 6}


def test_boxes_are_inside_the_image_and_apart_from_each_other(dataset):
    for boxes in labels(dataset.root, 96).values():
        for _, x, y, w, h in boxes:
            assert 0 <= x < x + w <= 96
            assert 0 <= y < y + h <= 96
        for (_, ax, ay, aw, ah), (_, bx, by, bw, bh) in itertools.combinations(boxes, 2):
            assert max(bx - ax - aw, ax - bx - bw, by - ay - ah, ay - by - bh) >= 1


@pytest.mark.parametrize(
    ("min_size", "max_size", "imgsz"), [(10, 32, 64), (8, 8, 64), (1, 3, 32), (64, 64, 64), (100, 180, 200)]
)
def test_the_longer_side_of_a_box_spans_the_sizes_asked_for(tmp_path, min_size, max_size, imgsz):
    made = make_digits.make_digits(tmp_path / "d", train=16, val=4, imgsz=imgsz, min_size=min_size, max_size=max_size)
    sizes = [max(w, h) for boxes in labels(made.root, imgsz).values() for *_, w, h in boxes]
    slack = (max_size - min_size) // 3
    assert min_size <= min(sizes) <= min_size + slack
    assert max_size - slack <= max(sizes) <= max_size


@pytest.mark.parametrize(("classes", "names"), [(1, ["digit"]), (10, [str(value) for value in range(10)])])
def test_classes_are_one_or_the_ten_values(tmp_path, classes, names):
    made = make_digits.make_digits(tmp_path / "d", train=30, val=2, imgsz=64, classes=classes)
    data = yaml.safe_load(made.data.read_text())
    assert data["names"] == dict(enumerate(names))
    assert data["nc"] == classes
    assert {label for boxes in labels(made.root, 64).values() for label, *_ in boxes} == set(range(classes))


def test_boxes_fit_the_ink_tightly_and_nothing_is_drawn_outside_them(sources):
    recipe = make_digits.Recipe(imgsz=96)
    for index in range(40):
        scene = make_digits.compose_scene(sources, np.arange(300), "train", index, recipe)
        drawn = np.abs(scene.image.astype(int) - scene.background).max(2)
        for box in scene.boxes:
            ink = drawn[box.y : box.y + box.h, box.x : box.x + box.w] >= 8
            assert all(side.any() for side in (ink[0], ink[-1], ink[:, 0], ink[:, -1]))
            drawn[box.y : box.y + box.h, box.x : box.x + box.w] = 0
        assert not drawn.any()


def test_every_digit_stands_out_from_what_is_behind_it(sources):
    recipe = make_digits.Recipe(imgsz=96)
    for split, index in itertools.product(("train", "val"), range(60)):
        scene = make_digits.compose_scene(sources, np.arange(300), split, index, recipe)
        for box in scene.boxes:
            area = np.s_[box.y : box.y + box.h, box.x : box.x + box.w]
            after, before = (
                np.asarray(Image.fromarray(image).convert("L"), float)[area]
                for image in (scene.image, scene.background)
            )
            ink = np.abs(after - before)
            strokes = ink >= np.percentile(ink, 80)
            assert abs(after[strokes].mean() - before.mean()) >= 35


def test_there_is_dark_ink_and_light_ink(sources):
    recipe = make_digits.Recipe(imgsz=96, max_digits=1)
    lighter = set()
    for index in range(30):
        scene = make_digits.compose_scene(sources, np.arange(300), "train", index, recipe)
        lighter.add(bool(scene.image.mean() > scene.background.mean()))
    assert lighter == {True, False}


def test_ultralytics_loads_every_image_and_box(dataset, monkeypatch, tmp_path):
    from ultralytics.data import utils
    from ultralytics.data.dataset import YOLODataset

    monkeypatch.setattr(utils, "check_font", lambda font: None)  # it would download a font
    monkeypatch.chdir(tmp_path)
    data = utils.check_det_dataset(str(dataset.data), autodownload=False)
    assert data["nc"] == 10
    for split, images in (("train", 40), ("val", 20)):
        loaded = YOLODataset(img_path=data[split], data=data, imgsz=96, augment=False)
        assert len(loaded) == images
        expected = {
            name: sorted(box[0] for box in boxes) for name, boxes in labels(dataset.root, 96).items() if split in name
        }
        found = {
            f"{split}/{Path(each['im_file']).stem}": sorted(each["cls"].ravel().astype(int).tolist())
            for each in loaded.labels
        }
        assert found == expected
        assert tuple(loaded[0]["img"].shape) == (3, 96, 96)


@pytest.mark.parametrize("where", ["beside", "inside", "elsewhere"])
def test_data_yaml_works_from_any_folder_even_after_a_move(tmp_path, monkeypatch, where):
    from ultralytics.data import utils

    monkeypatch.setattr(utils, "check_font", lambda font: None)
    make_digits.make_digits(tmp_path / "old place", **SMALL).root.rename(tmp_path / "new: 'place' é")
    moved = make_digits.make_digits(tmp_path / "new: 'place' é", **SMALL)
    assert not moved.made
    (tmp_path / "other").mkdir()
    cwd, data = {
        "beside": (tmp_path, moved.data.relative_to(tmp_path)),
        "inside": (moved.root, "data.yaml"),
        "elsewhere": (tmp_path / "other", moved.data),
    }[where]
    monkeypatch.chdir(cwd)
    found = utils.check_det_dataset(str(data), autodownload=False)
    assert Path(found["val"]) == moved.root / "images" / "val"
    assert Path(found["train"]).is_dir()


def test_the_contact_sheet_is_wide_and_grows_with_both_splits(dataset, small):
    assert Image.open(small.root / "contact_sheet.png").width == 1208
    assert (
        Image.open(dataset.root / "contact_sheet.png").height
        > Image.open(small.root / "contact_sheet.png").height
        > 400
    )


WRONG = [
    ({"train": 0}, "train must be a whole number of at least 1, got 0"),
    ({"val": 0}, "val must be a whole number of at least 1, got 0"),
    ({"val": -3}, "val must be .* got -3"),
    ({"imgsz": 0}, "imgsz must be .* got 0"),
    ({"min_size": 0}, "min_size must be a whole number of at least 1, got 0"),
    ({"max_size": -1}, "max_size must be .* got -1"),
    ({"max_digits": 0}, "max_digits must be .* got 0"),
    ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
    ({"classes": 2}, r"classes must be 1 \(any digit\) or 10 \(0 to 9\), got 2"),
    ({"min_size": 20, "max_size": 12}, "min_size must not exceed max_size, got min_size=20 and max_size=12"),
    ({"imgsz": 31}, "imgsz must be at least the largest digit, got imgsz=31 and max_size=32"),
]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [*WRONG, ({"train": 2.5}, "train must be .* got 2.5"), ({"val": True}, "val must be .* got True")],
)
def test_a_wrong_argument_is_named_with_its_value_and_the_way_out(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=f"{message}.*; write "):
        make_digits.make_digits(tmp_path / "digits", **{**SMALL, **wrong})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("wrong", "message"), WRONG)
def test_the_command_line_ends_with_the_same_error_and_no_traceback(tmp_path, capsys, wrong, message):
    options = [f"--{name.replace('_', '-')}={value}" for name, value in wrong.items()]
    with pytest.raises(SystemExit, match="2"):
        make_digits.main([f"--out={tmp_path / 'digits'}", *options])
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert re.search(message, error)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    "files",
    [{}, {"thesis.txt": "years"}, {"digits.json": "[]"}, {"digits.json": '{"made_by": "me"}', "data.yaml": "path: ."}],
)
def test_a_folder_of_someone_else_is_left_untouched(tmp_path, files, force):
    out = tmp_path / "digits"
    out.mkdir()
    for name, text in files.items():
        (out / name).write_text(text)
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match=r"out must be new or a folder that make_digits wrote.*write another out"):
        make_digits.make_digits(out, **SMALL, force=force)
    assert contents(tmp_path) == before


def test_a_file_in_the_way_is_left_untouched(tmp_path):
    (tmp_path / "digits").write_text("mine")
    with pytest.raises(FileExistsError, match="out must be new"):
        make_digits.make_digits(tmp_path / "digits", **SMALL, force=True)
    assert (tmp_path / "digits").read_text() == "mine"


@pytest.mark.parametrize("name", ["notes.txt", "images/train/holiday.png", "runs/best.pt"])
def test_force_does_not_lose_a_file_that_a_user_added(small, name):
    added = small.root / name
    added.parent.mkdir(exist_ok=True)
    added.write_text("mine")
    before = contents(small.root)
    with pytest.raises(FileExistsError, match=f"also holds 1 other \\({name}\\)"):
        make_digits.make_digits(small.root, **SMALL, force=True)
    assert contents(small.root) == before


def test_force_does_not_lose_what_comes_while_the_images_are_made_nor_an_empty_folder(small):
    def meanwhile(done, total):
        (small.root / "notes.txt").write_text("mine")

    with pytest.raises(FileExistsError, match=r"also holds 1 other \(notes.txt\)"):
        make_digits.make_digits(small.root, **SMALL, force=True, progress=meanwhile)
    (small.root / "notes.txt").unlink()
    (small.root / "mine").mkdir()
    with pytest.raises(FileExistsError, match=r"also holds 1 other \(mine\)"):
        make_digits.make_digits(small.root, **SMALL, force=True)
    assert (small.root / "mine").is_dir()


def test_a_data_set_with_the_same_arguments_is_kept_as_it_is(small):
    before = {path: path.stat().st_mtime_ns for path in small.root.rglob("*")}
    again = make_digits.make_digits(small.root, **SMALL)
    assert (small.made, again.made) == (True, False)
    assert {path: path.stat().st_mtime_ns for path in small.root.rglob("*")} == before


def test_other_arguments_need_force_and_then_replace_the_data_set_and_its_caches(small):
    (small.root / "labels" / "train.cache").write_text("written by Ultralytics")
    before = contents(small.root)
    with pytest.raises(
        FileExistsError, match=r"made with seed=0 \(now 1\); add force=True \(--force\) or write another out"
    ):
        make_digits.make_digits(small.root, **SMALL, seed=1)
    assert contents(small.root) == before
    made = make_digits.make_digits(small.root, **{**SMALL, "train": 2}, seed=1, force=True)
    assert json.loads((made.root / "digits.json").read_text())["seed"] == 1
    assert sorted(path.name for path in made.root.glob("*/train*")) == ["train", "train"]
    assert len(list(made.root.glob("images/train/*"))) == 2
    assert [path.name for path in made.root.parent.iterdir()] == ["digits"]


def test_a_data_set_with_missing_files_is_not_taken_for_whole(small):
    (small.root / "images" / "val" / "000001.png").unlink()
    with pytest.raises(FileExistsError, match=r"lacks 1 of \d+ \(images/val/000001.png\); add force=True"):
        make_digits.make_digits(small.root, **SMALL)
    assert make_digits.make_digits(small.root, **SMALL, force=True).made


@pytest.mark.parametrize("existing", [False, True])
def test_an_interrupted_run_leaves_what_was_there_and_nothing_else(tmp_path, existing):
    out = tmp_path / "digits"
    if existing:
        make_digits.make_digits(out, **SMALL)
    before = contents(tmp_path)

    def interrupt(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_digits.make_digits(out, **SMALL, seed=1, force=True, progress=interrupt)
    assert contents(tmp_path) == before


def test_without_scikit_learn_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ModuleNotFoundError, match="pip install scikit-learn"):
        make_digits.make_digits(tmp_path / "digits", **SMALL)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_command_reports_what_it_made_and_what_it_keeps(tmp_path):
    root = tmp_path / "datasets" / "digits"
    options = (
        "--train=4",
        "--val=2",
        "--imgsz=64",
        "--classes=10",
        "--min-size=12",
        "--max-size=20",
        "--max-digits=3",
        "--seed=4",
    )

    def command(*more: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "scripts.make_digits", f"--out={root}", *options, *more]
        return subprocess.run(words, cwd=ROOT, text=True, capture_output=True, timeout=60, check=False)

    first = command()
    assert first.returncode == 0, first.stderr
    assert first.stderr == "composing images: 6/6\n"
    boxes = Counter(name.split("/")[0] for name, found in labels(root, 64).items() for _ in found)
    for promise in (
        f"made {root}",
        f"4 images, {boxes['train']} boxes",
        f"2 images, {boxes['val']} boxes",
        f"data={root / 'data.yaml'}",
    ):
        assert promise in first.stdout
    record = json.loads((root / "digits.json").read_text())
    assert [f"--{name.replace('_', '-')}={value}" for name, value in record.items() if name != "made_by"] == [*options]

    again = command()
    assert again.returncode == 0
    assert again.stdout.startswith("already there, made with the same arguments; nothing to do")

    other = command("--seed=5")
    assert other.returncode == 2
    assert "seed=4 (now 5); add force=True (--force)" in other.stderr
    assert "Traceback" not in other.stderr

    assert command("--seed=5", "--force").returncode == 0
    assert json.loads((root / "digits.json").read_text())["seed"] == 5
