"""The README and docs/ as the tests read them: their code, and less of the same where it would take long."""

import re

from tests.conftest import ROOT

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md")), *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md"))]

#: The block of the four stock commands.
README_COMMANDS = "README.md-1"
#: What a block says, and what is run.
STAND_INS = {
    r"\bepochs=\d+": "epochs=1",
    r"\bimgsz=640": "imgsz=64",
    r"(model\.train\(data=\"coco8\.yaml\")": r"\1, imgsz=64, workers=0, plots=False, deterministic=False",
    r"(yolo (detect val|detect predict|predict|export)|yolov10-dysample plot) ": r"\1 imgsz=64 ",
    r"(yolo detect train .*)": r"\1 workers=0 plots=False deterministic=False",
    r"\bseeds=0-4": "seeds=0",
    r"\bformats=(\S+)": r"formats=\1 "
    "rounds=2 memory_runs=1 train_imgsz=64 train_batch=1 threads=1 skip=growth,operator",
}


def code_blocks(language):
    """Every code block of a language: where it stands, and its text."""
    for page in PAGES:
        for number, text in enumerate(re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.S | re.M)):
            yield f"{page.relative_to(ROOT)}-{number}", text


def shortened(text):
    """A block as it is run."""
    for pattern, less in STAND_INS.items():
        text = re.sub(pattern, less, text)
    return text


def documented(command):
    """The lines of all pages that call a ``yolov10-dysample`` command, each once, as they are run."""
    lines = [line.partition("#")[0].strip() for _, text in code_blocks("bash") for line in text.splitlines()]
    return [shortened(line) for line in dict.fromkeys(lines) if line.startswith(f"yolov10-dysample {command} ")]
