"""What tries the newest releases: it finds what breaks, and says it."""

import json
import subprocess
import sys
from pathlib import Path

import newest
import pytest
from newest import Outcome, downloads, ours, read_junit, summary
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def test_only_upper_bounds_are_lifted():
    found = {r.name.lower(): r for r in map(Requirement, ours("gpu"))}
    for name in ("verl", "torch", "transformers", "vllm"):
        assert found[name].specifier.contains("99.0"), name
        assert not found[name].specifier.contains("0.0.1"), name
    assert found["transformers"].extras == {"serving"}
    assert "virtualenv" in found
    assert "pytest" in found
    assert "rilbench" not in found


def test_an_import_that_breaks_is_named_with_its_modules(tmp_path):
    package = tmp_path / "some_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "fine.py").write_text("import json\n")
    (package / "gone.py").write_text("from json import no_such_name\n")
    (package / "also.py").write_text("from json import no_such_name\n")
    (package / "lacks.py").write_text("import not_installed_here.inner\n")
    script = ROOT / "tests" / "support" / "newest_imports.py"

    def causes(*absent):
        command = [sys.executable, script, "some_package", *absent]
        done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, text=True,
                              capture_output=True, check=True)  # fmt: skip
        return json.loads(done.stdout.splitlines()[-1])

    (cause, modules), (other, _) = sorted(causes().items())
    assert "no_such_name" in cause
    assert modules == ["some_package.also", "some_package.gone"]
    assert "not_installed_here" in other
    assert list(causes("not_installed_here")) == [cause]


def test_a_test_that_breaks_is_named_with_its_reason(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "def test_right(): pass\n"
        "def test_wrong(): raise ValueError('of the new release')\n"
        "def test_command(): assert not 'x' * 900 + 'ImportError: at the end'\n"
        "@pytest.mark.skip\ndef test_skipped(): pass\n"
        "@pytest.fixture\ndef broken(): raise OSError('no fixture')\n"
        "def test_without(broken): pass\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--junitxml=r.xml"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    failed, count = read_junit(tmp_path / "r.xml")
    assert count == 4
    assert len(failed) == 3
    assert failed[0] == "test_it::test_wrong: ValueError: of the new release"
    assert "ImportError: at the end" in failed[1]
    assert len(failed[1]) < 500
    assert "no fixture" in failed[2]


def test_what_pip_tries_is_counted_by_package():
    said = """\
Collecting virtualenv!=20.21.1,>=20.0.24 (from ray[default])
  Downloading virtualenv-21.15.11-py3-none-any.whl.metadata (5.7 kB)
  Downloading virtualenv-21.15.10-py3-none-any.whl (5.7 MB)
  Downloading virtualenv-21.15.10-py3-none-any.whl (5.7 MB)
  Downloading nvidia_cudnn_cu13-9.19.0.56-py3-none-manylinux_2_27_x86_64.whl (366.1 MB)
  Downloading antlr4-python3-runtime-4.9.3.tar.gz (117 kB)
"""
    assert downloads(said) == {
        "virtualenv": ["21.15.11", "21.15.10"],
        "nvidia_cudnn_cu13": ["9.19.0.56"],
        "antlr4-python3-runtime": ["4.9.3"],
    }


def test_the_summary_has_a_line_for_each_and_what_breaks():
    fine = Outcome("pip")
    bad = Outcome("verl", {"verl": "0.10.0"}, [("import", "ImportError: x"), ("uv", "a\nb")])
    text = summary([fine, bad])
    assert "| pip |  | works |" in text
    assert "| verl | verl 0.10.0 | **2 broken** |" in text
    assert "- import: `ImportError: x`" in text
    assert "  a\n  b\n" in text


def test_a_subject_that_breaks_fails_the_command(tmp_path, monkeypatch):
    def refuse(_: Outcome) -> None:
        raise newest.BreaksError("no solution")

    monkeypatch.setattr(newest, "try_pip", refuse)
    monkeypatch.setattr(newest, "PLACE", tmp_path)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    monkeypatch.setattr(sys, "argv", ["newest.py", "pip"])
    assert newest.main() == 1
    assert "no solution" in (tmp_path / "summary.md").read_text()


@pytest.mark.parametrize("name", ["training", "serving"])
def test_the_tests_of_vllm_can_be_imported(name):
    """They run in an environment of their own, and not with the others."""
    command = [sys.executable, "-m", "pytest", "--collect-only", f"tests/vllm/{name}.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
