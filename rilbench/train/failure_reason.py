"""Why a training stopped, in one line: the one that tells the cause, of an error's many."""

from __future__ import annotations

import errno
import re

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_TRACEBACK = re.compile(r"\bray::|Traceback \(most recent call last\)")
_ERROR = re.compile(r"^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt)\b")
_TELLS = ("low on memory", "killed by", "exit detail")
_REMEDIES = {
    "low on memory": "other programs on this machine need its memory, or set "
    "RAY_memory_usage_threshold=0.98",
    "out of memory": "lower policy.micro_batch_tokens or hardware.rollout_memory (rilbench plan)",
    "No space left": "make room",
    "quota exceeded": "make room",
}


def one_line(error: BaseException, most: int = 600) -> str:
    """The cause of an error in one line, with its type and, where it is known, a remedy.

    Ray's errors repeat the traceback of another process, whose last error is the cause, or begin
    with the cause and end with advice on Ray. A plain error's first line is its cause.
    """
    cause = getattr(error, "cause", None) or error  # a RayTaskError's
    text = _COLOUR.sub("", str(cause))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    kind = type(cause).__name__
    if _TRACEBACK.search(text):
        raised = [i for i, line in enumerate(lines) if _ERROR.match(line)]
        lines, kind = (lines[raised[-1] :], "") if raised else (lines[-1:], kind)
    first = lines[0] if lines else ""
    more = next((line for line in lines[1:] if any(word in line for word in _TELLS)), "")
    said = ": ".join(part for part in (kind, first, more) if part)
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        said += f": {cause.filename}" if cause.filename and cause.filename not in said else ""
    said = said[:most]
    remedy = next((text for word, text in _REMEDIES.items() if word in str(cause)), "")
    return f"{said}; {remedy}" if remedy else said
