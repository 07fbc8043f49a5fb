"""What is prepared at the start of an export, with a stand-in for the exporters of the old and the new releases."""

import re
from types import SimpleNamespace

import pytest
import ultralytics.engine.exporter
from torch import nn

from tests.conftest import ROOT
from yolov10_dysample.dysample import DySample
from yolov10_dysample.exporting import SAMPLING_SWITCH, TRACED_FORMS_BY_FORMAT, on_export_start

# Those of Ultralytics 8.3.100; newer releases have others, and put what they export in the exporter's arguments.
FORMATS = ["-", "torchscript", "onnx", "openvino", "engine", "coreml", "saved_model", "pb", "tflite", "edgetpu", "tfjs"]
FORMATS += ["paddle", "mnn", "ncnn", "imx", "rknn"]


@pytest.fixture
def older(monkeypatch):
    """An older Ultralytics, which exports what comes closest, and leaves what was asked for in the arguments."""
    monkeypatch.setattr(ultralytics.engine.exporter, "export_formats", lambda: {"Argument": FORMATS})


class Exporter:
    """An exporter as Ultralytics 8.3.0 to 8.3.125 has it when it announces an export: without a model."""

    def __init__(self, **arguments):
        self.args = SimpleNamespace(**{"format": "onnx", "opset": None, **arguments})


def test_an_exporter_that_has_its_model_is_prepared_at_once():
    exporter = Exporter()
    exporter.model = nn.Sequential(DySample(8))
    on_export_start(exporter)
    assert exporter.args.opset == 17


def test_an_exporter_without_its_model_is_prepared_when_it_gets_it_and_is_itself_again():
    exporter, other = Exporter(format="openvino"), Exporter()
    on_export_start(exporter)
    exporter.file = "best.pt"
    other.model = nn.Sequential(DySample(8))
    assert (exporter.args.opset, other.args.opset) == (None, None)
    exporter.model = nn.Sequential(DySample(8))
    assert exporter.args.opset == 18
    assert exporter.model[0].traced_form == "gather"
    assert type(exporter) is Exporter


@pytest.mark.parametrize("early", [True, False], ids=["8.3.0", "newer"])
def test_the_exporter_of_a_model_without_dysample_is_left_alone(early):
    exporter = Exporter(format="openvino", opset=12)
    if early:
        on_export_start(exporter)
    exporter.model = nn.Sequential(nn.Upsample(scale_factor=2))
    if not early:
        on_export_start(exporter)
    assert vars(exporter.args) == {"format": "openvino", "opset": 12}
    assert type(exporter) is Exporter


def test_an_opset_without_grid_sample_is_refused_when_the_model_comes():
    exporter = Exporter(opset=15)
    on_export_start(exporter)
    with pytest.raises(ValueError, match="DySample needs ONNX opset 16 or newer"):
        exporter.model = nn.Sequential(DySample(8))


@pytest.mark.parametrize(
    ("switch", "forms"),
    [
        (None, ("grid_sample", *["gather"] * 5, "x2paddle_gather")),
        ("", ("grid_sample", *["gather"] * 5, "x2paddle_gather")),
        ("auto", ("grid_sample", *["gather"] * 5, "x2paddle_gather")),
        ("gather", (*["gather"] * 6, "x2paddle_gather")),
        ("grid_sample", ["grid_sample"] * 7),
    ],
)
def test_a_format_gets_its_own_form_unless_the_switch_says_another(switch, forms, monkeypatch):
    monkeypatch.delenv(SAMPLING_SWITCH, raising=False)
    if switch is not None:
        monkeypatch.setenv(SAMPLING_SWITCH, switch)
    formats = ("onnx", "openvino", "engine", "litert", "executorch", "hailo", "paddle")
    for export_format, form in zip(formats, forms, strict=True):
        exporter = Exporter(format=export_format)
        exporter.model = nn.Sequential(DySample(8))
        on_export_start(exporter)
        assert exporter.model[0].traced_form == form


def test_the_docs_say_which_form_each_format_gets():
    text = (ROOT / "docs/export.md").read_text(encoding="utf-8")
    rows = text.partition("| format | form | why |")[2].partition("\n\n")[0]
    said = re.findall(r"^\| (`.*?`) \| (gathers|`GridSample`) \|", rows, re.M)
    assert {form for _, form in said} == {"gathers", "`GridSample`"}
    gathers = [name for names, form in said if form == "gathers" for name in re.findall(r"`(\w+)`", names)]
    assert sorted(gathers) == sorted(TRACED_FORMS_BY_FORMAT)


@pytest.mark.parametrize(
    "export_format", ["saved_model", "pb", "tflite", "edgetpu", "tfjs", "ncnn", "saved_mode", "tflit"]
)
def test_gathers_are_refused_where_the_converter_gets_them_wrong(export_format, older, monkeypatch):
    monkeypatch.setenv(SAMPLING_SWITCH, "gather")
    exporter = Exporter(format=export_format)
    exporter.model = nn.Sequential(DySample(8))
    with pytest.raises(ValueError, match=f"must be auto or grid_sample for format={export_format}.*, got 'gather'"):
        on_export_start(exporter)
    assert exporter.model[0].traced_form == "grid_sample"
    monkeypatch.setenv(SAMPLING_SWITCH, "auto")
    on_export_start(exporter)
    assert exporter.model[0].traced_form == "grid_sample"


def test_a_format_that_an_older_release_does_not_have_is_prepared_as_the_one_that_it_exports_instead(older):
    exporter = Exporter(format="litert")  # which is exported as tflite
    exporter.model = nn.Sequential(DySample(8))
    on_export_start(exporter)
    assert exporter.model[0].traced_form == "grid_sample"


@pytest.mark.parametrize("written", ["TensorRT", "trt", "ENGINE", "OpenVINO", "Paddle", "openvno", "engin"])
def test_a_format_gets_its_form_by_whichever_name_it_is_written(written, older, monkeypatch):
    monkeypatch.delenv(SAMPLING_SWITCH, raising=False)
    exporter = Exporter(format=written)
    exporter.model = nn.Sequential(DySample(8))
    on_export_start(exporter)
    assert exporter.model[0].traced_form.endswith("gather")


def test_a_sampling_that_is_not_there_is_refused_with_those_that_are(monkeypatch):
    monkeypatch.setenv(SAMPLING_SWITCH, "gathers")
    exporter = Exporter()
    exporter.model = nn.Sequential(DySample(8))
    with pytest.raises(ValueError, match="SAMPLING must be one of auto, gather, grid_sample, got 'gathers'"):
        on_export_start(exporter)
    assert exporter.model[0].traced_form == "grid_sample"


@pytest.mark.parametrize(("opset", "used"), [(None, 17), (12, 12), (20, 20)])
def test_without_grid_sample_any_opset_will_do(opset, used, caplog):
    exporter = Exporter(format="engine", opset=opset)
    exporter.model = nn.Sequential(DySample(8))
    on_export_start(exporter)
    assert exporter.args.opset == used
    assert not caplog.records


@pytest.mark.parametrize(("switch", "told"), [("auto", True), ("grid_sample", True), ("gather", False)])
def test_an_onnx_file_with_grid_sample_is_said_to_be_no_file_for_tensorrt(switch, told, monkeypatch, caplog):
    monkeypatch.setenv(SAMPLING_SWITCH, switch)
    exporter = Exporter()
    exporter.model = nn.Sequential(DySample(8))
    with caplog.at_level("INFO", logger="ultralytics"):
        on_export_start(exporter)
    assert ("use format=engine, or set YOLOV10_DYSAMPLE_SAMPLING=gather" in caplog.text) is told
