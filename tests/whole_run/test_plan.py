"""Run files, and the plan of one: read, overridden, counted; nothing is started."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from rilbench.cli import app
from rilbench.cli.run import _build_data
from rilbench.config import known, load_recipe
from rilbench.config.run_file import read_run_file
from rilbench.data.question_files import read_questions
from rilbench.errors import UserError
from rilbench.whole_run.plan import evaluation_options, plan_whole_run, whole_stages

STUDENTS = ("qwen2.5-vl-7b", "qwen2.5-vl-3b", "internvl3-8b", "internvl3-2b", "internvl3-1b")


def written(folder, text):
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


def test_make_demo_is_the_recipe_that_train_resolves():
    file = read_run_file("nano", {})
    assert file.recipe.fingerprint == load_recipe("both", "nano").fingerprint
    assert (file.run, dict(file.evaluation)) == ("demo", {"suite": "nano"})
    assert known("runs") == ["nano", "paper"]


@pytest.mark.parametrize("teachers", ["72b", "78b", "both"])
@pytest.mark.parametrize("student", STUDENTS)
def test_one_file_is_the_papers_fifteen_runs(student, teachers, tmp_path):
    file = read_run_file("paper", {"student": student, "recipe": teachers})
    assert file.run == f"{student}-{teachers}-ril"
    assert file.recipe.recipe == teachers
    assert file.recipe.schedule.eval_every == 50
    assert file.recipe.data.dev == "data/open-40k.dev.parquet"
    if teachers != "both":  # the same plan, with one teacher less
        return
    plan = plan_whole_run(file, evaluation_options(file, tmp_path / "r.db"))
    assert [stage.name for stage in plan.stages] == whole_stages(file.recipe)
    assert [line.split(",")[0] for line in plan.missing] == ["the judge"]
    here = "\n".join(plan.missing_here)
    assert "trains on GPUs, and there is none" in here
    for setting in ("student.model=", "teachers.models.72b=", "teachers.models.78b="):
        assert f"its folder, e.g. --set {setting}PATH" in here
    assert "rilbench data mm-vet-v2 FOLDER" in here


def test_what_is_missing_stops_it_before_anything_is_built(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["run", "paper"])
    assert isinstance(done.exception, UserError)
    assert str(done.exception).startswith("the judge, ")
    assert list(tmp_path.iterdir()) == []


def test_a_file_wins_over_student_and_hardware_and_the_command_line_over_it(tmp_path):
    path = written(
        tmp_path,
        "student: nano\nrun: mine\nsettings: {schedule: {steps: 7, keep: 3}}\neval: {limit: 5}\n",
    )
    file = read_run_file(path, {}, ["schedule.steps=9", "eval.limit=6", "eval.max-tokens=64"])
    assert (file.recipe.schedule.steps, file.recipe.schedule.keep) == (9, 3)
    assert file.recipe.schedule.prompts_per_step == 16
    options = evaluation_options(file, Path("r.db"))
    assert (options.limit, options.max_tokens, options.db) == (6, 64, Path("r.db"))
    assert file.run == "mine"
    assert read_run_file(path, {"recipe": "72b"}).run == "nano-72b-ril", "another run, its folder"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("schedule: {steps: 3}", "no 'schedule' in a run file.*settings:"),
        ("student: {name: x}", "student is a name"),
        ("eval: nano", "eval is a group"),
        ("settings: {schedule: {step: 3}}", "the nearest is 'schedule.steps'"),
        ("eval: {suit: nano}", "there is no option eval.suit"),
        ("eval: {limit: many}", "eval.limit='many' is not a number"),
        ("data: {test: open-40k}", r"no data\.test to build"),
        ("- 1", "holds no settings"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path, text, words):
    path = written(tmp_path, text)
    with pytest.raises(UserError, match=words):
        evaluation_options(read_run_file(path, {}), tmp_path / "r.db")


def test_an_unknown_file_names_the_known_ones():
    with pytest.raises(UserError, match="unknown run file 'papr'; known: nano, paper"):
        read_run_file("papr", {})


def test_the_dry_run_prints_the_whole_plan_and_starts_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["run", "paper", "--dry-run", "--set", "judge.url=http://judge:1/v1"]
    command += ["--set", "collection.endpoints.72b=http://teacher:1/v1"]
    narrow = CliRunner().invoke(app, command, env={"COLUMNS": "80"})
    assert max(map(len, narrow.output.splitlines())) <= 80
    done = CliRunner().invoke(app, command, env={"COLUMNS": "300"})
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    for words in (
        "qwen2.5-vl-7b with both by ril → runs/qwen2.5-vl-7b-both-ril",
        "docvqa: HuggingFaceM4/the_cauldron, 6,000 questions",
        "built of these: data/open-40k.parquet, 40,000 questions of 60,000",
        "held out of the same: data/open-40k.dev.parquet, 600 questions for data.dev",
        "72b: asked at http://teacher:1/v1",
        "serve OpenGVLab/InternVL3-78B-hf",
        "34,687 questions, 2 models",
        "device-hours",
        "judge: Qwen/Qwen2.5-32B-Instruct at http://judge:1/v1",
    ):
        assert words in text
    assert list(tmp_path.iterdir()) == []


def test_a_training_set_is_built_once_and_never_that_of_another_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [
        {"question": f"What is {i}?", "answer": str(i), "image": {"bytes": png(i), "path": None}}
        for i in range(6)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    source = {"path": "rows.parquet"}
    made = {"questions": 4, "benchmarks": "", "sources": {"mine": source}}
    (tmp_path / "set.yaml").write_text(yaml.safe_dump(made))
    file = written(tmp_path, "student: nano\ndata: {train: set.yaml}\n")
    read = read_run_file(file, {})
    assert read.data == {Path("data/set.parquet"): "set.yaml"}
    assert plan_whole_run(read, evaluation_options(read, tmp_path / "r.db")).stages[0].what[:2] == [
        "mine: rows.parquet, 4 questions",
        "built of these: data/set.parquet, 4 questions",
    ]
    _build_data(read)
    built = Path("data/set.parquet")
    assert len(read_questions(built)) == 4
    before = built.stat().st_mtime_ns
    _build_data(read)
    assert built.stat().st_mtime_ns == before
    (tmp_path / "set.yaml").write_text(yaml.safe_dump({**made, "questions": 3}))
    with pytest.raises(UserError, match="was built by another recipe"):
        _build_data(read)
    assert not read_run_file(file, {}, ["data.train=nano:prompts.parquet"]).data


def test_one_recipe_for_both_holds_the_dev_split_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [
        {"question": f"What is {i}?", "answer": str(i), "image": {"bytes": png(i), "path": None}}
        for i in range(6)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    made = {"questions": 4, "benchmarks": "", "sources": {"mine": {"path": "rows.parquet"}}}
    (tmp_path / "set.yaml").write_text(yaml.safe_dump(made))
    file = written(tmp_path, "student: nano\ndata: {dev: set.yaml, train: set.yaml}\n")
    read = read_run_file(file, {})
    assert (read.recipe.data.train, read.recipe.data.dev) == (
        "data/set.parquet",
        "data/set.dev.parquet",
    )
    with pytest.raises(UserError, match=r"set\.yaml holds out no questions; set dev: 500 in it"):
        _build_data(read)
    (tmp_path / "set.yaml").write_text(yaml.safe_dump({**made, "dev": 2}))
    _build_data(read)
    before = {path: path.stat().st_mtime_ns for path in read.data}
    assert [len(read_questions(path)) for path in read.data] == [2, 4]
    _build_data(read)
    assert {path: path.stat().st_mtime_ns for path in read.data} == before


def png(number):
    stream = io.BytesIO()
    Image.new("RGB", (32, 32), (40 * number, 0, 90)).save(stream, "PNG")
    return stream.getvalue()
