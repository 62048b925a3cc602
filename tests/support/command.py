"""The command line as a process, and what a refusal looks like."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SCRIPT = Path(sys.executable).parent / "rilbench"
TIMEOUT = 120


def run(*arguments, cwd, **environment):
    """Run a command in a process of its own.

    The process is a fork of this one, which has the heavy packages imported already: a start takes
    milliseconds. With a PYTHONPATH, which only a new interpreter follows, it is the script.
    """
    fixed = {"COLUMNS": "100", "NO_COLOR": "1", "GITHUB_STEP_SUMMARY": ""}
    environment = {**os.environ, **fixed, **environment}
    command = [str(SCRIPT), *map(str, arguments)]
    if environment.get("PYTHONPATH") == os.environ.get("PYTHONPATH"):
        return _run_in_a_fork(command, cwd, environment)
    return subprocess.run(
        command,
        cwd=cwd,
        capture_output=True,
        text=True,
        env=environment,
        timeout=TIMEOUT,
        check=False,
    )


def _run_in_a_fork(command, cwd, environment):
    import torchvision.io  # noqa: F401
    import transformers.image_processing_utils  # noqa: F401  # What `train` takes seconds for.

    import rilbench.cli  # noqa: F401

    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as error:
        process = multiprocessing.get_context("fork").Process(
            target=_main, args=(command, cwd, environment, out, error)
        )
        process.start()
        process.join(TIMEOUT)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(command, TIMEOUT)
        out.seek(0)
        error.seek(0)
        return subprocess.CompletedProcess(command, process.exitcode, out.read(), error.read())


def _main(command, cwd, environment, out, error):
    os.dup2(out.fileno(), 1)
    os.dup2(error.fileno(), 2)
    sys.stdout, sys.stderr = out, error
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = command
    from rilbench.cli import main

    main()


def refused(result, *words):
    """One clear line, a non-zero exit, no traceback."""
    assert result.returncode != 0
    assert "Traceback" not in result.stderr, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    for word in words:
        assert word in lines[0]
