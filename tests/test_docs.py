"""The documents against the code: a verb, option, setting or variable that they lack fails here."""

import ast
import json
import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from rilbench.cli import app
from rilbench.config import all_keys
from rilbench.data.question_files import read_questions
from rilbench.evaluate.suite import SUITES
from rilbench.lab.run_result import read_result
from rilbench.lab.to_ledger import record_results
from rilbench.ledger import Ledger
from rilbench.table.paper_rows import main_rows
from rilbench.table.render import FORMATS, render
from rilbench.table.types import Table

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "results" / "nano" / "runs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in sorted(
        [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "results").rglob("*.md")]
    )
}
ALL = "\n".join(DOCUMENTS.values())
CLI = typer.main.get_command(app)
TARGETS = dict(re.findall(r"^([a-z][a-z-]*):(.*)", (ROOT / "Makefile").read_text(), re.M))
KEYS = set(all_keys())
OPEN_KEYS = ("teachers.models.", "collection.endpoints.")  # settings with names of the user's own
NO_CHOICES = {
    *("recipe", "method", "teachers.names", "teachers.models", "collection.endpoints", "data.dev"),
    *(
        "discriminator.micro_batch_size",
        "policy.micro_batch_size",
        "schedule.save_every",
        "schedule.keep",
    ),
    *("hardware.device", "hardware.memory_gib", "hardware.ray_address"),
    "hardware.rollout_engine",
}
"""Settings of how and where a run is carried out, on which the paper need not say anything."""
VARIABLE = re.compile(r"([A-Z][A-Z_]+|[a-z]+_proxy)$")
GENERATED = ("results/bench/gpu.json", "results/nano/", "results/startup", "results/test-all")


def verbs(command, name=()):
    """Every command that does something, with its words."""
    subcommands = getattr(command, "commands", None)
    if subcommands is None:
        yield name, command
        return
    for word, sub in subcommands.items():
        yield from verbs(sub, (*name, word))


def section(words):
    """The README's section whose heading names the verb."""
    found = re.search(
        rf"^### [^\n]*`rilbench {' '.join(words)}`\n(.*?)(?=^##|\Z)", README, re.M | re.S
    )
    assert found, f"README.md has no section about rilbench {' '.join(words)}"
    return found[1]


def has_word(text, word):
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text) is not None


def code_blocks(text, *languages):
    return [
        b for lang, b in re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S) if lang in languages
    ]


def commands():
    """Every `rilbench …` of the documents, and whether it is a line to type or in a sentence."""
    for name, text in DOCUMENTS.items():
        blocks = "\n".join(code_blocks(text, "sh", "console")).replace("\\\n", " ")
        prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
        lines = [(line, True) for line in blocks.splitlines()]
        lines += [(line, False) for line in re.findall(r"`(rilbench [^`\n]*)`", prose)]
        for line, whole in lines:
            words = shlex.split(line, comments=True)
            if words[:1] == ["rilbench"]:
                yield pytest.param(words[1:], whole, id=f"{name}: {' '.join(words)}")


def parse(command, name, arguments):
    """Parse a verb's arguments as the program does; nothing is run."""
    return command.make_context(name, list(arguments)).params


@pytest.mark.parametrize(
    ("words", "command"), [pytest.param(*v, id=" ".join(v[0])) for v in verbs(CLI)]
)
def test_every_verb_and_option_is_in_the_readme(words, command):
    text = section(words)
    options = [o for p in command.params for o in p.opts if o.startswith("--") and o != "--help"]
    missing = [option for option in options if not has_word(text, option)]
    assert not missing, f"README.md does not mention {missing} of rilbench {' '.join(words)}"


def test_every_option_of_the_program_is_in_the_readme():
    assert [o for p in CLI.params for o in p.opts if not has_word(README, o)] == []


def test_no_option_is_made_up():
    options = [p for _, command in verbs(CLI) for p in command.params]
    known = {o for p in options for o in (*p.opts, *p.secondary_opts)} | {"--help", "--version"}
    # Of uv and mypy, of the judge's server, of Ray; scripts for a cluster have many more.
    others = {"--python", "--strict", "--host", "--port", "--generate", "--head"}
    others |= {"--target", "--tag", "--gpus", "--shm-size"}  # of Docker
    text = re.sub(r"^```bash\n.*?^```", "", ALL, flags=re.M | re.S)
    spans = re.findall(r"`(--[a-z][a-z-]*)", text) + re.findall(r"\s(--[a-z][a-z-]*)", text)
    assert set(spans) - known - others == set()


@pytest.mark.parametrize(("arguments", "whole"), list(commands()))
def test_every_command_parses(arguments, whole, tmp_path, monkeypatch):
    for name, text in re.findall(r"`([\w-]+\.yaml)`:\n\n```yaml\n(.*?)^```", ALL, re.M | re.S):
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    if arguments[0] in ("--help", "--version"):
        return
    found = [(w, c) for w, c in verbs(CLI) if tuple(arguments[: len(w)]) == w]
    assert found, f"there is no verb in {arguments}"
    (words, command), options = found[0], arguments[len(found[0][0]) :]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {o for o in options if o.startswith("--")} <= known
    must = [p for p in command.params if p.required]
    named = {p.opts[0] for p in must if p.param_type_name == "option"}
    lacks_place = len(must) > len(named) and not [o for o in options if not o.startswith("--")]
    if lacks_place or not named <= set(options):
        assert not whole, f"{[p.name for p in must]} must be given"
        return  # in a sentence: a mention of the verb or of one option
    if words == ("train",):
        result = CliRunner().invoke(app, [*arguments, "--dry-run"])
        assert result.exit_code == 0, result.exception
        return
    given = parse(command, words[-1], options)
    assert given.get("suite", "nano") in SUITES
    assert given.get("format_", "rich") in FORMATS


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_setting_exists(name):
    text = DOCUMENTS[name]
    groups = "|".join({key.split(".")[0] for key in KEYS if "." in key})
    used = set(re.findall(r"--set[= ]([\w.]+)=", text))
    used |= set(re.findall(rf"`((?:{groups})\.[a-z_]+)(?:=[^`]*)?`", text))
    files = {word for word in used if (ROOT / word).exists() or word.endswith((".jsonl", ".py"))}
    unknown = {word for word in used - files - KEYS if not word.startswith(OPEN_KEYS)}
    assert unknown - {"KEY"} == set()


def test_every_setting_of_the_method_is_in_the_list_of_choices():
    """What the paper leaves open is a setting with a line in docs/paper.md."""
    text = DOCUMENTS["docs/paper.md"]
    assert {key for key in KEYS - NO_CHOICES if f"`{key}`" not in text} == set()


def test_make_targets():
    spans = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", ALL, flags=re.M | re.S))
    lines = [line for block in code_blocks(ALL, "sh", "console") for line in block.splitlines()]
    used = {
        found[1]
        for text in [*(" ".join(span.split()) for span in spans), *lines]
        if (found := re.match(r"make ([a-z][a-z-]*)", text))
    }
    assert used <= set(TARGETS)
    shown = {name for name, rest in TARGETS.items() if "##" in rest}
    assert shown <= used, "a target of the Makefile is in no document"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_and_path_leads_somewhere(name):
    text = DOCUMENTS[name]
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text):
        if not target.startswith(("https://", "#")):
            path = (ROOT / name).parent / target.split("#")[0]
            assert path.exists(), f"{name} links to {target}"
    for path in re.findall(r"`((?:rilbench|tests|recipes|results|docs)/[\w./-]+)`", text):
        known = path.startswith(GENERATED) or "NAME" in path or (ROOT / path).exists()
        assert known, f"{name} names {path}"
    for column in re.findall(r"^\| `(paper/[\w.]+)`", text, re.M):
        assert (ROOT / "results" / column).exists()


def test_results_are_described():
    text = DOCUMENTS["results/README.md"]
    files = [path for path in (ROOT / "results").rglob("*.*") if path.suffix in (".csv", ".json")]
    found = [path.relative_to(ROOT / "results") for path in files]
    rows = Path("nano/runs")  # described as a folder
    assert f"`{rows}/`" in text
    assert {str(p) for p in found if rows not in p.parents and str(p) not in text} == set()


def variables_read(tree):
    """Names of environment variables that a module reads.

    `os.environ[X]`, `.get(X)`, `.setdefault(X)`, `.pop(X)` and `os.getenv(X)`, where X is a text, a
    constant of the module, or runs over the module's tuples of texts.
    """
    constants, tuples = {}, []
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            constants[ast.unparse(node.targets[0])] = node.value.value
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
            tuples += [e.value for e in node.value.elts if isinstance(e, ast.Constant)]
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
            names = [constants[key.id]] if key.id in constants else filter(VARIABLE.match, tuples)
            found = list(names)
            assert found, f"which variable is {key.id}?"
            yield from found
        else:
            assert key is None, f"which variable is {ast.unparse(key)}?"


def test_every_environment_variable_is_in_the_readme():
    read = {
        variable
        for path in (ROOT / "rilbench").rglob("*.py")
        for variable in variables_read(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert {"RILBENCH_DB", "RILBENCH_NANO", "RILBENCH_KITS", "PATH"} <= read
    assert {name for name in read if not has_word(README, name)} == set()


def test_the_json_example_is_what_the_table_prints():
    (example,) = code_blocks(README, "json")
    with Ledger.open_read(ROOT / "no such ledger") as ledger:
        rows = main_rows(ledger)
    assert json.loads(example) == json.loads(render(Table(tuple(rows)), "json"))[0]


def test_the_queries_of_the_ledger_work(tmp_path):
    """On a real ledger: of the laboratory's rows."""
    (example,) = code_blocks(README, "sql")
    rows = [read_result(path) for path in sorted(ROWS.glob("*/nano/*-11.json"))]
    with Ledger(tmp_path / "l.db") as ledger:
        record_results(rows, ledger)
        queries = [each for each in example.split(";") if each.strip()]
        assert len(queries) == 3
        for query in queries:
            assert ledger.rows(query)


def test_the_example_of_own_data_works(tmp_path, monkeypatch):
    (example,) = code_blocks(README, "python")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cat.jpg").write_bytes(b"\xff\xd8")
    exec(compile(example, "README.md", "exec"), {})
    (question,) = read_questions(tmp_path / "train.parquet")
    assert question.answer == "cat"
    assert question.images == (b"\xff\xd8",)


def test_the_documents_name_no_machine():
    found = re.findall(r"(?<![\w.~])/(?:work|home|root|tmp|Users)/\S*", ALL)
    assert found == []
