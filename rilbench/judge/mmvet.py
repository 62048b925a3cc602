"""Read the grading prompt that VLMEvalKit 0.0.20 sends for MM-Vet.

Its last line is ``question | ground truth | prediction | `` after a fixed table of examples. The
fields are not escaped, so a bar inside one makes the split ambiguous.
"""

from __future__ import annotations

_TASK = "Just complete the last space of the correctness score."
_EXAMPLES_END = "and their actual physical characteristics. | 1.0\n"
_BAR = " | "
_SENTENCE_ENDS = ("?", ".", "!", ":", "\uff1f", "\u3002", "\uff01", "\uff1a")


def read_mmvet_prompt(text: str) -> list[tuple[str, str, str]] | None:
    """Return the possible (question, ground truth, prediction), or None for any other prompt.

    There is one reading when the fields hold no bar, or when the question is the shortest beginning
    that ends like a sentence. Otherwise all splits are returned, shortest question first; the
    caller sees whether they lead to one grade.
    """
    head, end, row = text.partition(_EXAMPLES_END)
    if not end or _TASK not in head:
        return None
    row = row.lstrip("\n").rstrip()
    if not row.endswith(" |"):
        return None
    fields = row.removesuffix("|").removesuffix(" ").split(_BAR)
    if len(fields) < 3:
        return None
    readings = [
        (_BAR.join(fields[:i]), fields[i], _BAR.join(fields[i + 1 :]))
        for i in range(1, len(fields) - 1)
    ]
    for reading in readings:
        if reading[0].rstrip().endswith(_SENTENCE_ENDS):
            return [reading]
    return readings
