"""A plain installation has the bench, and says what to install for the rest."""

import ast
import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
from command import refused
from packaging.requirements import Requirement
from report_place import evaluation, outcomes

from rilbench.extras import EXTRAS, explain_missing, require
from rilbench.ledger import Ledger

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rilbench"
LAUNCHER = Path(__file__).parent / "support" / "no_extras.py"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

COMMANDS = (
    ("train",),
    ("plan",),
    ("eval",),
    ("table",),
    ("compare",),
    ("report",),
    ("view",),
    ("show",),
    ("check",),
    ("doctor",),
    ("import",),
    ("export",),
    ("ledger",),
    ("data",),
    ("kits",),
    ("nano", "build"),
    ("lab", "run"),
)


def without_extras(*arguments, cwd):
    return subprocess.run(
        [sys.executable, str(LAUNCHER), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_needs_no_extra(command, tmp_path):
    done = without_extras(*command, "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("table", "--only", "paper"), "RIL both"),
        (("plan", "--student", "qwen2.5-vl-3b"), "assumed"),
        (("show",), "is empty"),
        (("eval", "--list"), "MMStar"),
        (("train", "--recipe", "both", "--student", "nano", "--dry-run"), "student:"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_the_bench_runs_without_extras(arguments, words, tmp_path):
    done = without_extras(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert words in done.stdout


@pytest.mark.parametrize(
    "command", ["table", "show 1", "compare 1 2", "report 1 2 --out page.html"], ids=str
)
def test_a_small_ledger_needs_no_extras(command, tmp_path):
    with Ledger(tmp_path / "rilbench.db") as ledger:
        ledger.record(evaluation(outcomes({"a": 1.0, "b": 0.0})))
        ledger.record(evaluation(outcomes({"a": 1.0, "b": 1.0}), fingerprint="other"))
    done = without_extras(*command.split(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "page.html").exists() == command.startswith("report")


def test_results_are_imported_without_extras(tmp_path):
    results = str(ROOT / "results" / "nano" / "runs" / "headline")
    done = without_extras("import", results, "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "results of the nano sandbox" in done.stdout


def test_check_on_an_empty_ledger_needs_no_extras(tmp_path):
    refused(without_extras("check", cwd=tmp_path), "does not exist", "rilbench check --update")


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("train", "--recipe", "both", "--student", "nano"), "train"),
        (("nano", "build"), "lab"),
        (("lab", "run", "grid"), "lab"),
        (("lab", "gate"), "lab"),
        (("lab", "report"), "lab"),
        (("lab", "mechanisms"), "lab"),
        (("eval", "--model", "nano:restyled"), "train"),
        (("eval", "--model", "nano:restyled", "--engine", "batch"), "train"),
        (("data", "select", "nano:prompts.parquet", "--out", "q.parquet"), "train"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_command_that_needs_more_says_what_to_install(arguments, extra, tmp_path):
    done = without_extras(*arguments, cwd=tmp_path)
    refused(done, "not installed", f"pip install 'rilbench[{extra}]'")
    assert done.returncode == 1
    assert not list(tmp_path.glob("runs/*")), "nothing is begun"


def test_doctor_calls_absent_extras_missing(tmp_path):
    done = without_extras("doctor", "--recipe", "both", "--student", "nano", cwd=tmp_path)
    assert "Traceback" not in done.stderr
    assert "pip install 'rilbench[train]'" in done.stdout


def test_an_import_that_fails_is_explained_only_if_an_extra_has_it():
    explained = explain_missing(ModuleNotFoundError("no", name="torch.nn"))
    assert explained is not None
    assert "rilbench[train]" in explained
    assert "rilbench[lab]" in (explain_missing(ModuleNotFoundError("no", name="matplotlib")) or "")
    assert explain_missing(ModuleNotFoundError("no", name="rilbench.none")) is None


def test_require_passes_where_everything_is_installed():
    require("train", "this")
    require("lab", "this")


# ---- declared and used

# Distributions whose module has another name.
MODULES = {
    "hydra-core": "hydra",
    "huggingface-hub": "huggingface_hub",
    "math-verify": "math_verify",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "sqlite-utils": "sqlite_utils",
    "transferqueue": "transfer_queue",
    "vl-convert-python": "vl_convert",
}
USED_BY_OTHERS = {
    "torchvision",  # transformers' image processors
    "qwen_vl_utils",  # verl's prompts with images
    "cachetools",  # verl's reward loop
    "num2words",  # transformers' processor of SmolVLM2
    "openai",  # transformers serve
    "virtualenv",  # Ray; bounded for pip
    "vllm",  # verl's rollouts on GPUs
}
ONLY_TRAINING = ("train", "ril", "nano", "lab", "model")


def declared(requirements):
    names = [re.match(r"[\w.-]+", line)[0].lower() for line in requirements]
    return {MODULES.get(name, name) for name in names} - {"rilbench"}


BASE = declared(PROJECT["dependencies"])
PARSER = declared(PROJECT["optional-dependencies"]["parser"])
TRAIN = BASE | PARSER | declared(PROJECT["optional-dependencies"]["train"])
LAB = TRAIN | declared(PROJECT["optional-dependencies"]["lab"])
GPU = declared(PROJECT["optional-dependencies"]["gpu"])


def imports(file, *, module_level):
    """Third-party modules that a file imports; those inside functions, too, unless module_level."""

    def nodes(parent):
        for node in ast.iter_child_nodes(parent):
            if module_level and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                continue
            yield node
            yield from nodes(node)

    names = set()
    for node in nodes(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"rilbench"}


def sources():
    """Our files; a kit's worker and what it imports run in the kit's own environment."""
    kit_only = re.compile(
        r"evaluate/kits/(\w+_worker|lmmseval_patches|\w+_data|\w+_outcomes|worker_common)\.py"
    )
    for file in sorted(PACKAGE.rglob("*.py")):
        if not kit_only.search(file.as_posix()):
            yield file, file.relative_to(PACKAGE).parts[0]


def test_the_bench_imports_what_a_plain_installation_has():
    for file, part in sources():
        if part not in ONLY_TRAINING:
            allowed = BASE | {"tomllib"}
            assert imports(file, module_level=True) <= allowed, file


def test_everything_imported_is_declared():
    for file, part in sources():
        # Used where the user installed them; tomllib is Python 3.11's.
        users = {"wandb", "swanlab", "mlflow", "trackio", "clearml", "flash_attn"}
        allowed = LAB | GPU | users | {"tomllib"}
        assert imports(file, module_level=False) <= allowed, file
        if part == "train":
            assert not imports(file, module_level=False) & (LAB - TRAIN), file


def test_everything_declared_is_imported():
    used = set().union(*(imports(file, module_level=False) for file, _ in sources()))
    assert (LAB | GPU) - used == USED_BY_OTHERS


def test_the_extras_are_what_the_errors_name():
    extra = PROJECT["optional-dependencies"]
    assert set(EXTRAS["train"]) <= declared(extra["train"])
    assert set(EXTRAS["lab"]) == declared(extra["lab"])
    assert set(EXTRAS["parser"]) == declared(extra["parser"])
    assert extra["gpu"][0] == extra["lab"][0] == "rilbench[train]"


# ---- bounds


def required(lines):
    return {r.name.lower().replace("_", "-"): r for r in map(Requirement, lines)}


def test_the_bounds_are_those_of_verl():
    """What verl refuses is refused by us too: pip would download it to find that out."""
    ours = required(PROJECT["optional-dependencies"]["train"])
    theirs = required(line for line in requires("verl") if "extra ==" not in line)
    bounded = [name for name, r in theirs.items() if any(s.operator[0] == "<" for s in r.specifier)]
    assert {"transformers", "tensordict"} <= set(bounded)
    for name in bounded:
        for bound in theirs[name].specifier:
            if bound.operator[0] == "<":
                refused = bound.version if bound.operator == "<" else f"{bound.version}.1"
                assert not ours[name].specifier.contains(refused), name


@pytest.mark.parametrize("lock", ["train", "gpu"])
def test_the_lock_files_are_within_the_bounds(lock):
    text = (ROOT / "requirements" / f"{lock}.lock").read_text()
    locked = dict(re.findall(r"^([\w.-]+)(?:\[.*?\])?==([^\s;]+)", text, re.MULTILINE))
    extras = ("train", "gpu") if lock == "gpu" else ("train",)
    lines = [x for e in extras for x in PROJECT["optional-dependencies"][e]]
    for name, requirement in required([*PROJECT["dependencies"], *lines]).items():
        if name != "rilbench":
            here = locked.get(name) or (name == "tomli" and "2.0")
            assert requirement.specifier.contains(here), name
