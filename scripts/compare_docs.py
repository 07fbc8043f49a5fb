"""Writes what the documents say of the comparisons on record: ``python -m scripts.compare_docs`` writes the section of
docs/accuracy.md, the README's summary, ``results/compare/reports.md`` and the picture of every report.

It adds nothing: every number follows from the records, and from them alone.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from yolov10_dysample.files import write_whole
from yolov10_dysample.study.arms import NEAREST, STOCK
from yolov10_dysample.study.compare_report import draw_report, in_words, pooled_table, report
from yolov10_dysample.study.comparison import MAP, RECORDS
from yolov10_dysample.study.paired import gain, load
from yolov10_dysample.study.tables import between, markdown

RECORDED, DOCUMENT, README = Path("results/compare"), Path("docs/accuracy.md"), Path("README.md")
REPORTS = RECORDED / "reports.md"
#: The comparisons that the docs show, and what each is called there.
TITLES = {
    "scratch": "Digits, trained from scratch",
    "scratch-more": "Digits, trained from scratch, on fresh seeds",
    "warm": "Digits, fine-tuned from a trained stock model",
    "trees": "Photographs of trees, fine-tuned from COCO weights",
    "gentle": "Photographs of trees, fine-tuned at half the learning rate",
    "musgd": "Photographs of trees, fine-tuned with MuSGD",
}
#: The comparison that judges a fine-tuning: of those registered for it, the one that is complete.
JUDGE = "gentle"
#: Comparisons by two recipes of one question.
RECIPES = ("trees", "gentle")
#: Comparisons that are taken together as well: what that is called, and what has to be known of it.
TOGETHER: dict[tuple[str, ...], tuple[str, str]] = {
    ("scratch", "scratch-more"): (
        "Digits, trained from scratch, all seeds together",
        "The first five seeds suggested the lead, so that this table proves none: the fresh ones alone decide.",
    ),
    RECIPES: (
        "Photographs of trees, both learning rates together",
        "They were pooled after both had been seen, which was not registered: it bounds the differences, and could not "
        "prove a gain.",
    ),
}


def recorded() -> list[Path]:
    """The folders of all comparisons: first those that the docs show, in their order."""
    there = {file.parent for file in RECORDED.glob(f"*/{RECORDS}")}
    return [*_shown(), *sorted(there.difference(_shown()))]


def section(folders: Sequence[Path], target: Path) -> str:
    """The part of a document on some comparisons, with links that hold from where the document is."""
    parts = []
    for folder in folders:
        title = TITLES.get(folder.name, folder.name)
        place = Path(os.path.relpath(folder, target.parent)).as_posix()
        parts += [
            f"### {title}\n\n{report(folder, whole=False)}",
            f"![Learning curves and paired differences: {title}]({place}/report.png)\n\n"
            f"[With precision by object size]({Path(place).parent.as_posix()}/reports.md#{folder.name}), "
            f"[records]({place}/{RECORDS}).\n",
        ]
        parts += [together(folders, names) for names in TOGETHER if folder.name == names[-1]]
    return "\n".join(part for part in parts if part)


def together(folders: Sequence[Path], names: tuple[str, ...]) -> str:
    """Some of the comparisons as one, as Markdown; nothing if one of them is missing."""
    loaded = [load(folder) for folder in folders if folder.name in names]
    if len(loaded) < len(names):
        return ""
    arms = [arm for arm in loaded[0] if arm != NEAREST and all(arm in records for records in loaded)]
    title, remark = TOGETHER[names]
    named = " and ".join(f"`{name}`" for name in names)
    return (
        f"### {title}\n\n{named}, each pair within its own comparison. {remark}\n\n"
        f"{markdown(pooled_table(loaded, arms))}\n"
    )


def every_report(folders: Sequence[Path]) -> str:
    """A document of the whole reports of some comparisons."""
    parts = [f"## {folder.name}\n\n{report(folder)}" for folder in folders]
    return "\n".join(["# Every comparison on record\n\nWritten from the records beside it.\n", *parts])


def summary(folders: Sequence[Path]) -> str:
    """What the comparisons of the docs say of the paper's DySample: after a fine-tuning, and from scratch."""
    records = {folder.name: load(folder) for folder in folders}
    tuned = [gain(records[JUDGE], "dysample", base) for base in STOCK]
    scratch = [gain(records["scratch-more"], "dysample", base) for base in STOCK]
    told = [
        "; ".join(in_words(found, base) for found, base in zip(one, STOCK, strict=True)) for one in (tuned, scratch)
    ]
    return (
        f"DySample's {MAP} in pairs of one seed, mean difference [95 % interval]:\n\n"
        f"- Fine-tuned from COCO weights on photographs of trees: {told[0]}.\n"
        f"- Trained from scratch on digits, fresh seeds: {told[1]}."
    )


def _shown() -> list[Path]:
    return [RECORDED / name for name in TITLES]


#: What is written between marks of a document, by their name.
PARTS: dict[str, tuple[Path, Callable[[], str]]] = {
    "compare": (DOCUMENT, lambda: section(_shown(), DOCUMENT)),
    "accuracy-summary": (README, lambda: summary(_shown())),
}


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for name, (document, written) in PARTS.items():
        write_whole(document, between(document.read_text(encoding="utf-8"), name, written()).encode())
    write_whole(REPORTS, every_report(recorded()).encode())
    for folder in _shown():
        write_whole(folder / "report.png", draw_report(load(folder)))


if __name__ == "__main__":
    main()
