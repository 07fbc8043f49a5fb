"""Every stock model that upsamples takes DySample by name: it builds, keeps all other layers, and trains.

With YOLOV10_DYSAMPLE_WRITE=1 a run that includes the slow tests writes the table results/families.md.
"""

import collections
import functools
import os
import re

import pytest
import torch
import ultralytics
import yaml
from ultralytics import RTDETR, YOLO
from ultralytics.cfg import get_cfg
from ultralytics.nn import tasks
from ultralytics.utils import ROOT as HOST

from tests.conftest import ROOT, run
from yolov10_dysample.dysample import DySample

MODELS = HOST / "cfg/models"
TABLE = ROOT / "results/families.md"


def names_upsampling(file):
    return bool(re.search(r"^ *- \[.*nn\.Upsample", file.read_text(), re.MULTILINE))


@functools.cache  # reading a stock YAML takes a moment, and there are sixty
def smallest(file):
    """The name that picks the first, smallest size of a stock YAML: yolo11n-seg for yolo11-seg.yaml."""
    sizes = list(yaml.safe_load(file.read_text()).get("scales", {}))
    return re.sub(r"^(yolo(e-)?v?\d+)(?=-|$)", rf"\g<1>{sizes[0]}", file.stem) if len(sizes) > 1 else file.stem


FILES = sorted(MODELS.rglob("*.yaml"))
UPSAMPLING = [file for file in FILES if names_upsampling(file)]
OTHERS = [file for file in FILES if file not in UPSAMPLING]


def family(file):
    return file.parent.name


def test_there_are_stock_models_that_upsample():
    assert len(UPSAMPLING) > 40
    assert {family(file) for file in UPSAMPLING} >= {"v3", "v5", "v8", "v9", "v10", "11", "rt-detr"}


@pytest.fixture(scope="module")
def worked():
    """What worked, by family; written as a table at the end if asked for."""
    results = collections.defaultdict(lambda: {"converts": set(), "trains": {}})
    yield results
    if os.environ.get("YOLOV10_DYSAMPLE_WRITE") == "1":
        TABLE.write_text(table(results))


def table(results):
    lines = [
        f"Ultralytics {ultralytics.__version__}, torch {torch.__version__}. Of {len(UPSAMPLING)} stock YAMLs that "
        f"upsample, {sum(len(row['converts']) for row in results.values())} convert and build by name. Written by "
        f"`YOLOV10_DYSAMPLE_WRITE=1 pytest tests/test_families.py`.",
        "",
        "| family | stock YAMLs that convert and build | a training step, by task |",
        "|---|---|---|",
    ]
    for name in dict.fromkeys(family(file) for file in UPSAMPLING):
        all_files = [file for file in UPSAMPLING if family(file) == name]
        trained = "; ".join(f"{task}: {', '.join(models)}" for task, models in sorted(results[name]["trains"].items()))
        lines.append(f"| {name} | {len(results[name]['converts'])} of {len(all_files)} | {trained} |")
    return "\n".join(lines) + "\n"


def layers(name):
    """The layers of a model by its name, with shapes but without numbers."""
    model = tasks.yaml_model_load(f"{name}.yaml")
    with torch.device("meta"):
        return tasks.parse_model(model, 3, verbose=False)[0]


#: Detectors without a suffix, one for each generation, are tried by `make quick`, too.
PLAIN = re.compile(r"yolov?\d+|rtdetr-l")


@pytest.mark.parametrize(
    "file",
    [f if PLAIN.fullmatch(f.stem) else pytest.param(f, marks=pytest.mark.slow) for f in UPSAMPLING],
    ids=lambda file: file.stem,
)
def test_a_stock_models_name_plus_dysample_is_that_model_with_dysample(file, worked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = smallest(file)
    stock, ours = layers(name), layers(f"{name}-dysample")
    assert len(ours) == len(stock)
    swapped = [i for i, layer in enumerate(stock) if type(layer) is torch.nn.Upsample]
    assert [i for i, layer in enumerate(ours) if type(layer) is DySample] == swapped != []
    assert [(m.i, m.f) for m in ours] == [(m.i, m.f) for m in stock]
    shapes = {name: weight.shape for name, weight in ours.state_dict().items()}
    new = {name for name in shapes if int(name.split(".")[0]) in swapped}
    assert {name: shapes[name] for name in shapes.keys() - new} == {n: w.shape for n, w in stock.state_dict().items()}
    assert not list(tmp_path.iterdir())
    worked[family(file)]["converts"].add(file.stem)


@pytest.mark.parametrize("file", OTHERS, ids=lambda file: file.stem)
def test_a_stock_model_with_nothing_to_swap_is_refused_in_those_words(file):
    name = f"{smallest(file)}-dysample.yaml"
    stock = f"{smallest(file)}.yaml"
    message = f"'{name}' cannot be made from Ultralytics' {stock}: nothing to swap in {stock}: there is no nn.Upsample"
    with pytest.raises(ValueError, match=re.escape(message)):
        tasks.yaml_model_load(name)


@pytest.mark.parametrize("size", "nsmlx")
def test_the_size_letter_and_the_users_name_are_kept(size):
    model = tasks.yaml_model_load(f"yolo11{size}-dysample.yaml")
    assert (model["scale"], model["yaml_file"]) == (size, f"yolo11{size}-dysample.yaml")


LOADED_TWICE = """
import ultralytics.nn.tasks as tasks
for name in {names}:
    for _ in range(2):
        print(tasks.yaml_model_load(name)["nc"])
"""


@pytest.mark.slow
def test_one_line_says_what_was_swapped_and_that_once(python, tmp_path):
    output = run(python, "-c", LOADED_TWICE.format(names=["yolo11n-dysample.yaml"]), cwd=tmp_path)
    line = "yolo11n-dysample.yaml: yolo11n.yaml with DySample in place of nn.Upsample in rows 11, 14"
    assert output.splitlines() == [line, "80", "80"]


@pytest.mark.slow
def test_a_shipped_config_and_a_file_of_the_users_come_before_a_conversion(python, tmp_path):
    (tmp_path / "yolo11n-dysample.yaml").write_text("{nc: 7, backbone: [], head: []}")
    names = ["yolov10n-dysample.yaml", "yolo11n-dysample.yaml"]
    output = run(python, "-c", LOADED_TWICE.format(names=names), cwd=tmp_path)
    assert output.splitlines() == ["80", "80", "7", "7"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("yolov10n-DySample.yaml", "yolov10n-dysample.yaml"),
        ("YOLOv10n-dysample.yaml", "yolov10n-dysample.yaml"),
        ("yolov10N-dysample.yaml", "yolov10n-dysample.yaml"),
        ("YOLO11N-SEG-dysample.yaml", "yolo11n-seg-dysample.yaml"),
        ("RTDETR-l-DYSAMPLE.yaml", "rtdetr-l-dysample.yaml"),
    ],
)
def test_a_name_in_capitals_gets_the_one_in_small_letters(name, meant, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"^'{name}' does not exist\..* did you mean '{meant}'\?$"):
        tasks.yaml_model_load(name)
    assert tasks.yaml_model_load(meant)["head"]


@pytest.mark.parametrize("name", ["yolov10n-DySample.yaml", "YOLOv10n-dysample.yaml"])
def test_a_file_of_the_users_may_have_capitals(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text("{nc: 7, backbone: [], head: []}")
    assert tasks.yaml_model_load(name)["nc"] == 7


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "nc: 7\n", "backbone: []\nhead:\n"], ids=repr)
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mine-dysample.yaml", ""),
        ("yolov10n-dysample.yaml", ". It comes before the model of that name that yolov10_dysample ships: to use"),
    ],
)
def test_a_file_without_layers_is_said_to_be_no_model(text, name, hint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(text)
    message = (
        f"'{name}' is not a model YAML: it needs `backbone` and `head`, lists of rows [from, repeats, module, args]"
    )
    with pytest.raises(ValueError, match=rf"^{re.escape(message + hint)}{'' if hint else '$'}"):
        tasks.yaml_model_load(name)


@pytest.mark.parametrize(
    "name",
    [
        "coco8-dysample.yaml",
        "yolo11z-dysample.yaml",
        "-dysample.yaml",
        "sub/yolo11n-dysample.yaml",
        "yolo11n-dysample.yml",
    ],
)
def test_a_name_that_means_no_model_gets_the_names_that_do(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"'{name}' does not exist.*such as yolo11n-seg-dysample\.yaml"):
        tasks.yaml_model_load(name)


# One model for each task of each family, the smallest there is, and each kind of head.
QUICK = [
    "yolov5n",
    "yolov8n",
    "yolov8n-seg",
    "yolov8n-pose",
    "yolov8n-obb",
    "yolov8n-worldv2",
    "yoloe-v8n",
    "yolov9t",
    "yolov10n",
    "yolo11n",
    "yolo12n",
    "yolo26n",
]
SLOW = [
    "yolov3-tiny",
    "yolov5n-p6",
    "yolov8n-p2",
    "yolov8n-ghost",
    "yolov8n-world",
    "yolov8n-rtdetr",
    "yoloe-v8n-seg",
    "yolov9c-seg",
    "yolo11n-seg",
    "yolo11n-pose",
    "yolo11n-obb",
    "yolo12n-seg",
    "yolo12n-pose",
    "yolo12n-obb",
    "yolo26n-seg",
    "yolo26n-pose",
    "yolo26n-obb",
    "yolo26n-sem",
    "yolo26n-depth",
    "rtdetr-l",
]


def batch(task, imgsz, classes):
    """One object in each of two images, with the labels of every task."""
    box = [[0.5, 0.5, 0.5, 0.4]] * 2
    mask = torch.zeros(2, imgsz, imgsz)
    mask[:, imgsz // 4 : imgsz // 2, imgsz // 4 : imgsz // 2] = 1
    return {
        "img": torch.rand(2, 3, imgsz, imgsz),
        "batch_idx": torch.tensor([0.0, 1.0]),
        "cls": torch.tensor([[0.0], [min(1.0, classes - 1)]]),
        "bboxes": torch.tensor([[*row, 0.3] for row in box] if task == "obb" else box),
        "masks": mask,
        "sem_masks": torch.zeros(2, imgsz, imgsz),
        "keypoints": torch.full((2, 17, 3), 0.5),
        "semantic_mask": mask.long(),
        "depth": torch.rand(2, 1, imgsz, imgsz) + 0.5,
        "txt_feats": torch.nn.functional.normalize(torch.randn(2, classes, 512), dim=-1),
    }


def shipped(name):
    """Whether the installed Ultralytics has the model: an older one lacks the newer families."""
    return name in {smallest(file) for file in UPSAMPLING}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)])
def test_a_training_step_through_its_own_loss_moves_the_offsets(name, worked, tmp_path, monkeypatch):
    if not shipped(name):
        pytest.skip(f"Ultralytics {ultralytics.__version__} has no {name}")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    owner = (RTDETR if "rtdetr" in name else YOLO)(f"{name}-dysample.yaml")
    model = owner.model.train()
    model.args, model.nc = get_cfg(), model.yaml["nc"]  # as the trainer does
    # RT-DETR picks 300 places; a P6 model's last map must be more than one pixel, where no offset matters.
    imgsz = 160 if "rtdetr" in name else 128 if "p6" in name else 64
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    loss, _ = model.loss(batch(owner.task, imgsz, model.nc))
    loss.sum().backward()
    upsampling = [layer for layer in model.model if isinstance(layer, DySample)]
    before = [layer.offset.weight.detach().clone() for layer in upsampling]
    optimizer.step()

    assert loss.isfinite().all()
    assert upsampling
    for layer, weight in zip(upsampling, before, strict=True):
        assert layer.offset.weight.isfinite().all()
        assert not torch.equal(layer.offset.weight, weight)
    (file,) = (file for file in UPSAMPLING if smallest(file) == name)
    worked[family(file)]["trains"].setdefault(owner.task, []).append(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rows", "imgsz"),
    [("yolo11n", "11, 14", 64), ("yolov8n-rtdetr", "10, 13", 160)],
    ids=["yolo11n", "yolov8n-rtdetr"],
)
def test_the_stock_command_trains_a_converted_model_and_says_so_once(name, rows, imgsz, warm_shell, digits, tmp_path):
    settings = (
        f"imgsz={imgsz} epochs=1 batch=2 workers=0 fraction=0.1 plots=True val=False device=cpu deterministic=False"
    )
    output = warm_shell(f"yolo detect train model={name}-dysample.yaml data='{digits}' {settings}", cwd=tmp_path)
    line = f"{name}-dysample.yaml: {name}.yaml with DySample in place of nn.Upsample in rows {rows}\n"
    assert output.count(line) == 1
    assert output.count("yolov10_dysample.dysample.DySample") >= 2
    (header,) = (file.read_text().splitlines()[0] for file in tmp_path.rglob("dysample_offsets.csv"))
    assert re.findall(r"layer(\d+)_p99", header) == rows.split(", ")
    assert len(list(tmp_path.rglob("dysample_offsets.png"))) == 1
    (best,) = tmp_path.rglob("best.pt")
    assert [type(layer) for layer in YOLO(best).model.model].count(DySample) == 2


def test_every_family_and_task_of_the_installed_release_is_trained_above():
    kinds = {
        (family(file), tasks.guess_model_task(yaml.safe_load(file.read_text())))
        for file in UPSAMPLING
        if family(file) != "rt-detr"
    }
    trained = {
        (family(file), tasks.guess_model_task(yaml.safe_load(file.read_text())))
        for file in UPSAMPLING
        if smallest(file) in QUICK + SLOW
    }
    assert not kinds - trained
    assert any(smallest(file) in QUICK + SLOW for file in UPSAMPLING if family(file) == "rt-detr")
