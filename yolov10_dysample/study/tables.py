"""Tables as Markdown and for the terminal, and the generated section of a document. Knows the standard library only."""

from __future__ import annotations

import re

__all__ = ["Table", "aligned", "between", "markdown"]

#: A header and its rows, all of one length; every cell is text.
Table = list[list[str]]


def markdown(table: Table) -> str:
    """A Markdown table: the first column to the left, numbers to the right.

    Example:
        >>> print(markdown([["runtime", "ms"], ["ncnn", "50.1"]]))
        | runtime | ms |
        | --- | ---: |
        | ncnn | 50.1 |
    """
    header, *rows = table
    rule = ["---", *["---:" for _ in header[1:]]]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def aligned(table: Table) -> str:
    """For the terminal: the first column to the left, numbers to the right.

    Example:
        >>> print(aligned([["runtime", "ms"], ["**ncnn**", "50.1"]]))
        runtime    ms
        -------------
        ncnn     50.1
    """
    plain = [[re.sub(r"[*`]", "", text) for text in row] for row in table]
    # In a wide table, a row with nothing after its second cell is a remark, and must not widen a column.
    figures = [row for row in plain if len(row) == 2 or any(row[2:])]
    widths = [max(len(row[i]) for row in figures) for i in range(len(plain[0]))]
    widths[0] = max(len(row[0]) for row in plain)
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in plain
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(line.rstrip() for line in lines)


def between(document: str, name: str, text: str) -> str:
    """The document with a text in place of what was between its two markers of that name, which stay.

    Raises:
        ValueError: If the document does not have each marker once.

    Example:
        >>> print(between("a\\n<!-- x:begin -->\\nold\\n<!-- x:end -->\\nz", "x", "new"))
        a
        <!-- x:begin -->
        new
        <!-- x:end -->
        z
    """
    begin, end = (f"<!-- {name}:{word} -->" for word in ("begin", "end"))
    if document.count(begin) != 1 or document.count(end) != 1:
        raise ValueError(f"a document must have one {begin} and one {end}; write them where the section belongs")
    before, rest = document.split(begin)
    return f"{before}{begin}\n{text.strip()}\n{end}{rest.split(end)[1]}"
