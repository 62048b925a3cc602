"""The built wheel in a clean environment: a plain installation, in an arbitrary folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import refused
from fake_judge import fake_judge, says

from rilbench.evaluate.kits.environment import environment_name, is_complete, kits_folder
from rilbench.evaluate.suite import VLMEVALKIT
from rilbench.resources import resource

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).parent / "uv"
HEAVY = ("torch", "torchvision", "verl", "ray", "transformers", "vllm", "sklearn", "matplotlib")
KIT = kits_folder() / environment_name(VLMEVALKIT, resource(f"requirements/{VLMEVALKIT}.lock"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The bin folder of an environment with the wheel and what it asks for."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([UV, "build", "--quiet", "--wheel", "--out-dir", folder, ROOT], check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, folder / "env"], check=True)
    bin_ = folder / "env" / "bin"
    install = [UV, "pip", "install", "--quiet", "--python", bin_ / "python", wheel]
    subprocess.run(install, check=True)
    return bin_


def run(installed, *arguments, cwd):
    program = installed / arguments[0] if arguments[0] == "python" else installed / "rilbench"
    rest = arguments[1:] if arguments[0] == "python" else arguments
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [program, *rest],
        cwd=cwd,
        env={**kept, "COLUMNS": "160", "NO_COLOR": "1", "GITHUB_STEP_SUMMARY": ""},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_the_package_is_complete_and_has_no_torch(installed, tmp_path):
    code = (
        "import rilbench; from importlib.util import find_spec; from pathlib import Path;"
        "from rilbench.paths import locate; from rilbench.resources import resource;"
        "folder = Path(rilbench.__file__).parent; assert 'site-packages' in str(folder);"
        "assert (folder / 'py.typed').exists(); locate('nano:restyled');"
        "assert list(resource('recipes').rglob('*.yaml')); assert list(folder.rglob('*.toml'));"
        "assert list(resource('results/paper').glob('*.csv'));"
        "[getattr(rilbench, name) for name in rilbench.__all__];"
        f"print([name for name in {HEAVY} if find_spec(name)])"
    )
    done = run(installed, "python", "-c", code, cwd=tmp_path)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "[]", "")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("table --only paper", "RIL both"),
        ("plan --student qwen2.5-vl-3b", "assumed"),
        ("show", "is empty"),
        ("eval --list", "MMStar"),
        ("kits list", "vlmevalkit"),
        ("data overlap nano:prompts.parquet --suite nano", "questions"),
        ("train --recipe both --student nano --dry-run", "student:"),
    ],
)
def test_a_command_of_the_bench(installed, tmp_path, command, words):
    done = run(installed, *command.split(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert words in done.stdout


def test_a_command_of_an_extra(installed, tmp_path):
    done = run(installed, "train", "--recipe", "both", "--student", "nano", cwd=tmp_path)
    refused(done, "pip install 'rilbench[train]'")
    refused(run(installed, "lab", "run", "grid", cwd=tmp_path), "pip install 'rilbench[lab]'")
    refused(run(installed, "eval", "--model", "nano:restyled", cwd=tmp_path), "rilbench[train]")


@pytest.mark.skipif(not is_complete(KIT), reason="VLMEvalKit's environment is not installed here")
def test_an_endpoint_is_evaluated_tabled_reported_and_checked(installed, tmp_path):
    with fake_judge(lambda _: says("A")) as server:
        endpoint = ("--endpoint", f"org/some-vlm@{server.url}")
        options = ("--suite", "nano", "--benchmarks", "MMStar", "--limit", "8")
        done = run(installed, "eval", *endpoint, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for command in (("table",), ("show",), ("show", "1")):
        shown = run(installed, *command, cwd=tmp_path)
        assert shown.returncode == 0, shown.stderr
        assert "some-vlm" in shown.stdout
    compared = run(installed, "compare", "1", "1", cwd=tmp_path)
    assert "Traceback" not in compared.stderr
    reported = run(installed, "report", "1", cwd=tmp_path)
    assert reported.returncode == 0, reported.stderr
    assert list(tmp_path.rglob("*.html"))
    refused(run(installed, "check", cwd=tmp_path), "does not exist")
    reason = ("--update", "--reason", "the first bounds")
    updated = run(installed, "check", *reason, cwd=tmp_path)
    assert "Traceback" not in updated.stderr
