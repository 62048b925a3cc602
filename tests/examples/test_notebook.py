"""The notebook of the nano run: a real kernel runs its cells in order."""

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "nano.ipynb"
STEPS = re.compile(r"^STEPS = \d+$", re.MULTILINE)
RUN = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbformat.validate(notebook)
nbclient.NotebookClient(notebook, timeout=1200, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The Python of an environment with Jupyter that sees this one's packages."""
    uv, home = Path(sys.executable).parent / "uv", tmp_path_factory.mktemp("jupyter") / "env"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, home], check=True)
    python = home / "bin" / "python"
    install = [uv, "pip", "install", "--quiet", "--python", python, "nbclient", "ipykernel"]
    subprocess.run(install, check=True)
    (packages,) = home.glob("lib/python*/site-packages")
    ours = sysconfig.get_path("purelib")
    (packages / "rilbench.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    return python


def text_of(cell):
    """What a cell printed."""
    return "".join("".join(o.get("text", "")) for o in cell["outputs"])


@pytest.mark.timeout(1500)
def test_its_cells_train_evaluate_and_show_the_report(python, tmp_path):
    """With two steps instead of thirty, in a folder of its own."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell["source"] = STEPS.sub("STEPS = 2", "".join(cell["source"]))
    (tmp_path / "in.ipynb").write_text(json.dumps(notebook))
    path = f"{python.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [python, "-c", RUN, "in.ipynb", "out.ipynb"],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "COLUMNS": "160", "GITHUB_STEP_SUMMARY": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    cells = {c["id"]: c for c in json.loads((tmp_path / "out.ipynb").read_text())["cells"]}
    assert "step 2/2" in text_of(cells["train"])
    assert "ril both" in text_of(cells["train"])
    moves = re.compile("\x1b\\[[0-9?]*[A-Zhl]")  # of the cursor, as a live display needs
    assert not any(moves.search(text_of(cell)) for cell in cells.values() if "outputs" in cell)
    (shown,) = [o["data"]["text/html"] for o in cells["report"]["outputs"] if "data" in o]
    assert "".join(shown).startswith("<iframe srcdoc=")
    assert "Usage:" not in text_of(cells["compare"])
    assert "first: 1 nano base" in text_of(cells["compare"])


def test_it_is_short_and_has_no_results_in_it():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert sum(len(cell["source"]) for cell in code) <= 30
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
