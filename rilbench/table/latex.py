"""The table for a paper: a booktabs table with caption, label and its notes below it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from rilbench.printable import printable
from rilbench.table.footnotes import INCOMPLETE, ODD, REPRODUCED, UNLIKE
from rilbench.table.formatting import evaluation_ids, lines
from rilbench.table.rounding import number
from rilbench.table.types import AVERAGE, Table, TableRow

PACKAGES = r"\usepackage{amssymb,booktabs,graphicx}"
_SOURCES = {"paper": "Reported in the paper", "measured": "Measured"}
_MARKS = {
    ODD: r"$^\dagger$",
    INCOMPLETE: r"$^\ddagger$",
    REPRODUCED: r"$^{\checkmark}$",
    UNLIKE: r"$\neq$",
}
_TEXT = {
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "…": r"\ldots{}",
    **{mark: f"{{{mark}}}" for mark in "[*"},  # a line's first is an option of the one before
    **_MARKS,
}


def latex(table: Table) -> str:
    """Return a table environment, which needs `PACKAGES`; other scripts than Latin need xelatex.

    Rows of the paper and measured ones are apart, the best number of each student and source is
    bold. Marks take no room, so that the decimals stay in line.
    """
    columns = len(table.columns) + 1
    heads = ["Student", "Method", "Teacher", *table.columns, table.mean]
    text = [
        f"% {PACKAGES}",
        r"\begin{table*}[t]",
        r"\centering",
        r"\caption{Scores on the benchmarks; higher is better.}",
        r"\label{tab:rilbench}",
        r"\small",
        r"\setlength{\tabcolsep}{3pt}",
        r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{lll*{{{columns}}}{{r}}}}",
        r"\toprule",
        " & ".join(map(_escaped, heads)) + r" \\",
    ]
    for source, rows in itertools.groupby(table.rows, key=lambda row: row.source):
        title = rf"\multicolumn{{{columns + 3}}}{{l}}{{\emph{{{_SOURCES[source]}}}}} \\"
        text += [r"\midrule", title, *_section(list(rows), table)]
    text += [r"\bottomrule", r"\end{tabular}}"]
    if table.notes:
        text += [r"\par\smallskip", r"\begin{minipage}{\textwidth}\footnotesize\raggedright"]
        text += [rf"{_escaped(note)}\par" for note in table.notes]
        text.append(r"\end{minipage}")
    return "\n".join([*text, r"\end{table*}"])


def _section(rows: Sequence[TableRow], table: Table) -> Iterator[str]:
    """Yield the lines of one source's rows; a little room between students."""
    columns = (*table.columns, AVERAGE)
    groups = itertools.groupby(rows, key=lambda row: (row.student, row.suite, row.kit))
    for place, (_, group) in enumerate(groups):
        if place:
            yield r"\addlinespace"
        of_student = list(group)
        values = [
            [row.value(c) for row in of_student if not row.cell(c).incomplete] for c in columns
        ]
        best = [number(max((v for v in some if v is not None), default=None)) for some in values]
        for row in of_student:
            names = [row.student, row.method, row.teacher]
            if table.details and (ids := evaluation_ids(row)):
                names[1] += f" #{ids[0]}"
            for name, cells in lines(row, table.columns):
                if name:
                    if table.details:
                        yield _line(["", name, ""], [_cell(cell) for cell in cells])
                    continue
                # A number with a mark is not equal: it was made otherwise, or is incomplete.
                bold = [
                    len(of_student) > 1 and cell == b for cell, b in zip(cells, best, strict=True)
                ]
                yield _line(names, [_cell(*each) for each in zip(cells, bold, strict=True)])


def _line(names: Sequence[str], cells: Sequence[str]) -> str:
    return " & ".join([*map(_escaped, names), *cells]) + r" \\"


def _cell(text: str, bold: bool = False) -> str:
    """Return a number with its marks beside the column, not in it."""
    marks = "".join(mark for mark in text if mark in (INCOMPLETE, ODD, REPRODUCED))
    plain = _escaped(text.translate({ord(mark): None for mark in marks}))
    if bold and plain != "-":
        plain = rf"\textbf{{{plain}}}"
    plain = rf"${plain}$" if plain.startswith("-") and len(plain) > 1 else plain
    return plain + (rf"\rlap{{{_escaped(marks)}}}" if marks else "")


def _escaped(text: str) -> str:
    return "".join(_TEXT.get(mark, mark) for mark in printable(text))
