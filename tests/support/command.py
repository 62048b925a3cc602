"""The command line as a process, and what a refusal looks like."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(sys.executable).parent / "rilbench"


def run(*arguments, cwd, **environment):
    return subprocess.run(
        [str(SCRIPT), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "COLUMNS": "100",
            "NO_COLOR": "1",
            "GITHUB_STEP_SUMMARY": "",
            **environment,
        },
        timeout=120,
        check=False,
    )


def refused(result, *words):
    """One clear line, a non-zero exit, no traceback."""
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    for word in words:
        assert word in lines[0]
