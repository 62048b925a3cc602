"""The documents against the code: what they name exists, what they show works."""

import ast
import dataclasses
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

import rilbench
from rilbench.cli import app
from rilbench.config import all_keys, known
from rilbench.evaluate.suite import SUITES
from rilbench.lab.run_result import read_result
from rilbench.lab.to_ledger import record_results
from rilbench.ledger import Ledger
from rilbench.ledger.housekeeping import tag
from rilbench.ril.methods import METHODS
from rilbench.table.paper_rows import main_rows
from rilbench.table.render import FORMATS, render
from rilbench.table.types import Table

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "results" / "README.md"]
DOCUMENTS = {str(p.relative_to(ROOT)): p.read_text(encoding="utf-8") for p in sorted(PAGES)}
GENERATED = ("docs/cli.md", "docs/settings.md")
ALL = "\n".join(text for name, text in DOCUMENTS.items() if name not in GENERATED)
KEYS = set(all_keys())
OPEN_KEYS = (
    "teachers.models.",
    *(f"collection.{s}." for s in ("endpoints", "fields", "price", "serve")),
)
"""Settings whose last part is a name of the user's own."""
NO_CHOICES = {
    "recipe",
    "method",
    "teachers.names",
    "teachers.models",
    "collection.endpoints",
    "collection.price",
    "collection.serve",
    "data.dev",
    "data.manifests",
    "discriminator.micro_batch_size",
    "policy.micro_batch_size",
    "schedule.save_every",
    "schedule.keep",
    "hardware.device",
    "hardware.memory_gib",
    "hardware.ray_address",
    "hardware.rollout_engine",
}
"""Settings of how and where a run is carried out: the paper need not say anything about them."""


def blocks(text, *languages):
    """Return the code blocks of a page in these languages."""
    pairs = re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)
    return [code for language, code in pairs if language in languages]


def prose(text):
    """Return a page without its code blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def leaf_commands(command, words=()):
    """Yield the words and the object of every command that does something."""
    subcommands = getattr(command, "commands", None)
    if subcommands is None:
        yield words, command
        return
    for word, sub in subcommands.items():
        yield from leaf_commands(sub, (*words, word))


COMMANDS = dict(leaf_commands(typer.main.get_command(app)))
PROGRAM_OPTIONS = ("--help", "--version", "--verbose")


def shown_commands():
    """Yield every `rilbench …` of the documents, and whether it is a line to type."""
    for name, text in DOCUMENTS.items():
        if name in GENERATED:
            continue
        lines = "\n".join(blocks(text, "sh", "console")).replace("\\\n", " ").splitlines()
        mentions = re.findall(r"`(rilbench [^`\n]*)`", prose(text))
        for line, is_line in [(x, True) for x in lines] + [(x, False) for x in mentions]:
            words = [word for word in shlex.split(line, comments=True) if word != "…"]
            if words[:1] == ["rilbench"]:
                yield pytest.param(words[1:], is_line, id=f"{name}: {' '.join(words)}")


# ---- commands, settings, examples


@pytest.mark.parametrize(("arguments", "is_line"), list(shown_commands()))
def test_every_command_in_the_documents_parses(arguments, is_line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in re.findall(r"`([\w-]+\.yaml)`:\n\n```yaml\n(.*?)^```", ALL, re.M | re.S):
        (tmp_path / name).write_text(text)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    while arguments and arguments[0] in PROGRAM_OPTIONS:
        arguments = arguments[1:]
    if not arguments:
        return
    name = next((n for n in COMMANDS if tuple(arguments[: len(n)]) == n), None)
    if name is None:
        # In a sentence, a group of commands may be mentioned by its name.
        assert not is_line
        assert any(n[: len(arguments)] == tuple(arguments) for n in COMMANDS), arguments
        return
    command, options = COMMANDS[name], arguments[len(name) :]
    given = {o for o in options if o.startswith("--") and " " not in o}  # Not vLLM's, in quotes.
    assert given <= {o for p in command.params for o in p.opts}
    required = [p for p in command.params if p.required]
    places = [p for p in required if p.param_type_name == "argument"]
    given = [o for o in options if not o.startswith("--")]
    complete = len(given) >= len(places) and {p.opts[0] for p in required} - {
        p.opts[0] for p in places
    } <= set(options)
    if not complete:
        assert not is_line, f"{[p.name for p in required]} must be given"
    elif name == ("train",):
        result = CliRunner().invoke(app, [*arguments, "--dry-run"])
        assert result.exit_code == 0, result.exception
    else:
        values = command.make_context(name[-1], list(options)).params
        suites = values.get("suite") or "nano"
        assert set([suites] if isinstance(suites, str) else suites) <= set(SUITES)
        assert values.get("format_", "rich") in FORMATS


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_setting_in_the_documents_exists(name):
    text = DOCUMENTS[name]
    groups = "|".join({key.split(".")[0] for key in KEYS if "." in key})
    used = set(re.findall(r"--set[= ]'?([\w.]+)=", text))
    used |= set(re.findall(rf"`((?:{groups})\.[a-z_]+)(?:=[^`]*)?`", text))
    used = {word for word in used if not word.endswith((".json", ".jsonl", ".parquet", ".py"))}
    assert {word for word in used - KEYS - {"KEY"} if not word.startswith(OPEN_KEYS)} == set()


def test_every_make_target_in_the_documents_exists():
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M))
    lines = [line for code in blocks(ALL, "sh", "console") for line in code.splitlines()]
    spans = re.findall(r"`(make [^`]+)`", prose(ALL))
    used = {m[1] for text in [*lines, *spans] if (m := re.match(r"make ([a-z][a-z-]*)", text))}
    assert used - targets == set()


SNIPPETS = [
    pytest.param(code, id=f"{name}-{number}")
    for name, text in DOCUMENTS.items()
    for number, code in enumerate(blocks(text, "python"))
]


@pytest.mark.parametrize("code", SNIPPETS)
def test_every_python_snippet_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cat.jpg").write_bytes(b"\xff\xd8")
    exec(compile(code, "snippet", "exec"), {"__name__": "snippet"})


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("look_at_a_step.py", "largest difference from the recorded advantages"),
        ("own_data.py", "written: questions.parquet"),
        ("add_a_reward.py", "0.200  7"),
    ],
)
def test_every_quick_example_runs(script, says, tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert says in done.stdout


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.sh")), ids=lambda p: p.name)
def test_every_shell_example_parses(script):
    subprocess.run(["bash", "-n", str(script)], check=True)
    calls = re.findall(r"^\s*rilbench ([a-z]+)", script.read_text(), re.M)
    assert calls
    assert {(call,) for call in calls} <= set(COMMANDS)


def test_the_json_example_is_what_the_table_prints():
    (example,) = blocks(DOCUMENTS["docs/compare.md"], "json")
    with Ledger.open_read(ROOT / "no such ledger") as ledger:
        rows = main_rows(ledger)
    assert json.loads(example) == json.loads(render(Table(tuple(rows)), "json"))[0]


def test_the_queries_of_the_ledger_work(tmp_path):
    """On a real ledger, filled with results of the lab."""
    (example,) = blocks(DOCUMENTS["docs/ledger.md"], "sql")
    metadata = yaml.safe_load((ROOT / "docs" / "datasette.yaml").read_text(encoding="utf-8"))
    canned = [query["sql"] for query in metadata["databases"]["rilbench"]["queries"].values()]
    runs = ROOT / "results" / "nano" / "runs"
    queries = [query for query in example.split(";") if query.strip()]
    with Ledger(tmp_path / "l.db") as ledger:
        record_results(
            [read_result(p) for p in sorted(runs.glob("headline/paper/*-201.json"))], ledger
        )
        trained = next(e for e in ledger.evaluations() if e.method == "ril")
        published = dataclasses.replace(
            trained, student="Qwen2.5-VL-7B-Instruct", teacher="both", suite="paper"
        )
        ledger.record(published)
        start = trained.start_fingerprint or ""
        samples = [dataclasses.replace(s, score=0.0) for s in ledger.samples(trained.id or 0)]
        untrained = {"method": "base", "fingerprint": start, "start_fingerprint": None}
        ledger.record(dataclasses.replace(trained, samples=tuple(samples), **untrained))
        for query in queries:
            assert ledger.rows(query)
        tag(ledger, [trained.id or 0], "mine", remove=False)
        # Nothing gets worse here, and nothing lacks a verdict.
        found = [bool(ledger.rows(query, {"suite": "nano"})) for query in canned]
        assert dict(zip(metadata["databases"]["rilbench"]["queries"], found, strict=True)) == {
            name: name not in ("broken", "without_verdict")
            for name in metadata["databases"]["rilbench"]["queries"]
        }
        (pairs,) = [ledger.rows(query) for query in queries if "paper_scores" in query]
        assert ("Qwen2.5-VL-7B-Instruct", "AI2D") in {row[:2] for row in pairs}


# ---- what has to be documented


def test_every_table_view_and_column_of_the_ledger_is_explained():
    """Each has a heading, and below it a table whose first column names every column once."""
    page = DOCUMENTS["docs/ledger.md"]
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", page, re.DOTALL | re.MULTILINE))
    with Ledger.open_read(ROOT / "no such ledger") as ledger:
        names = ledger.rows(
            "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') "
            "AND name NOT LIKE 'sqlite_%'"
        )
        assert {name for (name,) in names} == sections.keys()
        for name, text in sections.items():
            columns = [column for _, column, *_ in ledger.rows(f"PRAGMA table_info({name})")]
            cells = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
            assert sorted(re.findall(r"`(\w+)`", " ".join(cells))) == sorted(columns), name


@pytest.mark.parametrize("name", ["generate_cli", "generate_settings", "generate_results"])
def test_generated_pages_are_fresh(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pages = module.pages() if hasattr(module, "pages") else {module.PAGE: module.page()}
    fresh = all(page.read_text(encoding="utf-8") == text for page, text in pages.items())
    assert fresh, f"run: python docs/{name}.py"


def test_every_choice_that_the_paper_leaves_open_has_a_line():
    text = DOCUMENTS["docs/paper.md"]
    assert {key for key in KEYS - NO_CHOICES if f"`{key}`" not in text} == set()


def test_every_recipe_and_method_is_documented():
    train, lab = DOCUMENTS["docs/train.md"], DOCUMENTS["docs/lab.md"]
    names = {name for kind in ("recipes", "students", "hardware") for name in known(kind)}
    assert {name for name in names | set(METHODS) if f"`{name}`" not in train} == set()
    experiments = {path.stem for path in (ROOT / "recipes" / "lab").glob("*.yaml")} - {"gate"}
    assert {name for name in experiments if f"rilbench lab run {name}" not in lab} == set()


def test_every_name_of_the_python_api_is_documented():
    names = set(rilbench.__all__) - {"__version__"}
    assert {name for name in names if f"`{name}`" not in DOCUMENTS["docs/api.md"]} == set()


def environment_variables(tree):
    """Yield names of environment variables that a module reads.

    The name is a text, a constant of the module, or runs over the module's lists of texts.
    """
    constants, lists = {}, []
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            constants[ast.unparse(node.targets[0])] = node.value.value
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple | ast.List):
            lists += [e.value for e in node.value.elts if isinstance(e, ast.Constant)]
    for node in ast.walk(tree):
        key = None
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            key = node.slice if ast.unparse(node.value) == "os.environ" else None
        elif isinstance(node, ast.Call):
            reader = r"os\.getenv|os\.environ\.(get|setdefault|pop)"
            key = node.args[0] if re.fullmatch(reader, ast.unparse(node.func)) else None
        if isinstance(key, ast.Constant):
            yield key.value
        elif isinstance(key, ast.Name):
            variables = [name for name in lists if re.fullmatch(r"[A-Z][A-Z_]+|[a-z]+_proxy", name)]
            yield from [constants[key.id]] if key.id in constants else variables


def test_every_environment_variable_is_documented():
    read = {
        variable
        for path in (ROOT / "rilbench").rglob("*.py")
        for variable in environment_variables(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert {"RILBENCH_DB", "RILBENCH_NANO", "RILBENCH_KITS", "PATH", "http_proxy"} <= read
    text = DOCUMENTS["docs/files.md"]
    assert {name for name in read if f"`{name}`" not in text} == set()


def test_results_are_described():
    text, folder = DOCUMENTS["results/README.md"], ROOT / "results"
    files = [p.relative_to(folder) for p in folder.rglob("*.*") if p.suffix in (".csv", ".json")]
    runs = Path("nano/runs")  # described as a folder
    assert f"`{runs}/`" in text
    assert {str(p) for p in files if runs not in p.parents and f"`{p}`" not in text} == set()


# ---- form


@pytest.mark.parametrize("words", ["black-box distillation", "without logits", "GRPO"])
def test_the_first_words_are_what_people_search_for(words):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    places = [
        " ".join([project["description"], *project["keywords"]]),
        (ROOT / "CITATION.cff").read_text(encoding="utf-8"),
        *(" ".join(DOCUMENTS[name].split()[:110]) for name in ("README.md", "docs/index.md")),
    ]
    assert all(words.casefold() in place.casefold() for place in places)


def test_the_readme_is_short():
    assert len(DOCUMENTS["README.md"].splitlines()) <= 150


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if not name.startswith("docs/")])
def test_every_link_leads_to_a_file(name):
    """Links within docs/ are checked by `mkdocs build --strict`."""
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", DOCUMENTS[name]):
        if not target.startswith(("https://", "#")):
            assert (ROOT / name).parent.joinpath(target.split("#")[0]).exists(), target


def test_every_path_in_the_documents_exists():
    paths = set(re.findall(r"`((?:rilbench|tests|recipes|docs|examples)/[\w./-]+)`", ALL))
    assert {path for path in paths if not (ROOT / path).exists()} == set()


def test_the_documents_name_no_machine():
    assert re.findall(r"(?<![\w.~])/(?:work|home|root|tmp|Users)/\S*", ALL) == []


def test_the_vocabulary_check_passes():
    command = [sys.executable, str(ROOT / "docs" / "check_words.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def yaml_files():
    """Return every YAML file of the project, except recipes, which their own tests load."""
    files = [path for folder in (".", "docs") for path in (ROOT / folder).glob("*.y*ml")]
    files += (ROOT / ".github").rglob("*.y*ml")
    return sorted([*files, *ROOT.glob(".*.yaml"), ROOT / "CITATION.cff"])


@pytest.mark.parametrize("path", yaml_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_every_yaml_file_can_be_read(path):
    assert yaml.compose(path.read_text(encoding="utf-8")) is not None


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=str)
def test_every_workflow_ends_and_calls_targets_that_exist(path):
    text = path.read_text(encoding="utf-8")
    jobs = yaml.safe_load(text)["jobs"].values()
    assert all("timeout-minutes" in job for job in jobs)
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"^\s*(?:run: )?make ([a-z-]+)", text, re.M)) <= targets
    assert "://" not in text.replace("https://github.com", "")


def test_the_site_loads_nothing_from_elsewhere(tmp_path):
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--quiet",
        "--strict",
        "--site-dir",
        tmp_path,
    ]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=100)
    for page in tmp_path.glob("*.html"):
        assert (
            re.findall(r"""(?:src|rel="stylesheet" href)=["']https?:[^"']*""", page.read_text())
            == []
        )
