"""``rilbench data build``: from sources in their own layouts to one training set and a manifest."""

import errno
import io
import json
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from command import refused, run
from PIL import Image
from typer.testing import CliRunner

from rilbench.cli import app
from rilbench.data.build import build
from rilbench.data.build_recipe import read_data_recipe
from rilbench.data.contamination.overlap import BenchmarkIndex
from rilbench.data.manifest import dev_of, digest_of, manifest_of, whole_of
from rilbench.data.question_files import read_questions
from rilbench.errors import UserError
from rilbench.evaluate.data import data_folder
from rilbench.evaluate.suite import find_suite
from rilbench.paths import nano_folder


def picture(seed):
    stream = io.BytesIO()
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def cauldron(path, start, rows):
    """Two turns a row, as in The Cauldron."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = [
        {
            "images": [{"bytes": picture(start + i), "path": None}],
            "texts": [
                {"user": f"Which? {i}", "assistant": "Answer: B", "source": "made"},
                {"user": f"How many? {i}", "assistant": "three " * (i % 4 + 1), "source": "made"},
            ],
        }
        for i in range(rows)
    ]
    pq.write_table(pa.Table.from_pylist(values), path)


def science(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = [
        {
            "image": {"bytes": picture(5000 + i), "path": None},
            "question": f"What is {i}?",
            "choices": ["yes", "no", "perhaps"],
            "answer": i % 3,
        }
        for i in range(rows)
    ]
    pq.write_table(pa.Table.from_pylist(values), path)


@pytest.fixture
def recipe(tmp_path, hub):
    """A function that writes a recipe of three sources with these changes, and reads it."""
    folder = hub.add("lab/cauldron", license="cc-by-4.0")
    cauldron(folder / "charts" / "train-00000-of-00001.parquet", 0, 20)
    cauldron(folder / "diagrams" / "train-00000-of-00001.parquet", 100, 12)
    science(tmp_path / "science" / "train-0.parquet", 30)
    one = {"hub": "lab/cauldron", "all_turns": True}
    sources = {
        "charts": {**one, "files": ["charts/*.parquet"], "share": 2},
        "diagrams": {**one, "files": ["diagrams/*.parquet"], "max_answer_words": 2},
        "science": {"path": "science", "share": 1.5},
    }

    def write(changes=None, **values):
        settings = {
            "questions": 18,
            "benchmarks": "",
            "sources": sources | (changes or {}),
            **values,
        }
        file = tmp_path / "recipe.yaml"
        file.write_text(yaml.safe_dump(settings))
        return read_data_recipe(str(file))

    return write


class Tell:
    """Remembers what it is told."""

    def __init__(self):
        self.notes, self.counts = [], []

    def note(self, text):
        self.notes.append(text)

    def report(self, text, done, total=0):
        self.counts.append((text, done, total))


def make(recipe, out, **options):
    tell = Tell()
    arguments = {"open_benchmarks": None, "scorer": None, **options}
    return build(recipe, out, tell=tell, **arguments), tell


def test_each_source_gives_its_share_and_the_manifest_says_so(recipe, hub, tmp_path):
    out = tmp_path / "set.parquet"
    manifest, _ = make(recipe(), out)
    questions = read_questions(out)
    assert Counter(q.source for q in questions) == {"charts": 8, "diagrams": 4, "science": 6}
    assert len({q.id for q in questions}) == 18
    assert all(len(q.answer.split()) <= 2 for q in questions if q.source == "diagrams")
    assert json.loads(manifest_of(out).read_text()) == json.loads(json.dumps(manifest))
    charts = manifest["sources"]["charts"]
    assert charts["revision"] == hub.commit("datasets/lab/cauldron")
    assert charts["license"] == "cc-by-4.0"
    assert (charts["rows"], charts["candidates"], charts["questions"]) == (20, 40, 8)
    assert manifest["sources"]["diagrams"]["too_long"] == 6
    sources = [q.source for q in questions]
    assert sources != sorted(sources), "the sources are mixed"


def test_the_same_recipe_makes_the_same_set_and_a_seed_another(recipe, tmp_path):
    first, _ = make(recipe(), tmp_path / "a.parquet")
    again, _ = make(recipe(), tmp_path / "b.parquet")
    other, _ = make(recipe(seed=1), tmp_path / "c.parquet")
    assert first == again
    assert first["questions_sha256"] != other["questions_sha256"]
    assert first["recipe_fingerprint"] != other["recipe_fingerprint"]


def test_a_source_that_is_done_is_not_done_again(recipe, tmp_path):
    out = tmp_path / "set.parquet"
    too_many = {"path": "science", "share": 40}
    with pytest.raises(UserError, match=r"sources.science has 30 questions left and the recipe"):
        make(recipe({"science": too_many}, questions=60), out)
    assert not out.exists()
    parts = out.with_suffix(".build")
    before = {file: file.stat().st_mtime_ns for file in parts.glob("*.parquet")}
    assert {file.stem for file in before} == {"charts", "diagrams", "science"}
    make(recipe(), out)
    assert {file: file.stat().st_mtime_ns for file in before} == before
    science(tmp_path / "science" / "train-0.parquet", 31)
    manifest, told = make(recipe(), out)
    assert manifest["sources"]["science"]["rows"] == 31
    assert told.notes[-2:] == ["science: 31 candidates of 31 rows", "drawing from 89 candidates"]
    assert not any("candidates" in note for note in told.notes[:-2])
    assert told.counts == [("science rows", done, 31) for done in range(1, 32)]


def test_pictures_beside_a_file_that_change_are_noticed(recipe, tmp_path):
    own, out = tmp_path / "own", tmp_path / "set.parquet"
    own.mkdir()
    (own / "a.png").write_bytes(picture(1))
    (own / "q.jsonl").write_text(json.dumps({"image": "a.png", "question": "?", "answer": "x"}))
    changed = recipe({"own": {"path": "own/q.jsonl", "share": 0.1}}, questions=46)
    before, _ = make(changed, out)
    assert not any("own:" in note for note in make(changed, out)[1].notes)
    (own / "a.png").write_bytes(picture(2))
    after, told = make(changed, out)
    assert "own: 1 candidates of 1 rows" in told.notes
    assert before["sources"]["own"] == after["sources"]["own"], "the revision is of the file"
    assert before["questions_sha256"] != after["questions_sha256"]


@pytest.mark.parametrize("name", ["charts.json", "set.manifest.json"])
def test_a_full_disk_leaves_no_half_record(recipe, tmp_path, monkeypatch, name):
    write = Path.write_text

    def full(path, text, **options):
        write(path, text[:10] if name in path.name else text, **options)
        if name in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "set.parquet"
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="No space"):
            make(recipe(), out)
    assert not list(tmp_path.rglob(name))
    assert make(recipe(), out)[0]["questions"] == 18


def test_a_source_with_what_is_built_in_it_is_refused(recipe, tmp_path, hub):
    science(tmp_path / "train-0.parquet", 5)
    before = list(hub.asked)
    with pytest.raises(UserError, match=r"sources.own.path: .* would have .*set.parquet in it"):
        make(recipe({"own": {"path": "."}}), tmp_path / "set.parquet")
    with pytest.raises(UserError, match="nowhere does not exist"):
        make(recipe({"own": {"path": "nowhere"}}), tmp_path / "set.parquet")
    assert hub.asked == before, "nothing is downloaded before"


def test_the_dev_split_shares_no_picture_with_the_training_set(recipe, tmp_path):
    out = tmp_path / "set.parquet"
    plain, _ = make(recipe(), tmp_path / "plain.parquet")
    manifest, _ = make(recipe(dev=9), out)
    train, dev = read_questions(out), read_questions(dev_of(out))
    assert (len(train), manifest["questions"]) == (18, 18)
    assert Counter(q.source for q in dev) == {"charts": 4, "diagrams": 2, "science": 3}
    pictures = [{image for q in some for image in q.images} for some in (train, dev)]
    assert pictures[0].isdisjoint(pictures[1]), "two questions of a row have one picture"
    of_dev = json.loads(manifest_of(dev_of(out)).read_text())
    assert (of_dev["questions"], of_dev["recipe"]["dev"]) == (9, 9)
    assert of_dev["questions_sha256"] == digest_of(dev)
    assert plain["recipe_fingerprint"] != manifest["recipe_fingerprint"]
    assert whole_of(dev_of(out)) == out == whole_of(out)
    with pytest.raises(UserError, match=r"charts has \d+ questions left, without the pictures"):
        make(recipe(dev=60, questions=40), tmp_path / "b.parquet")


def test_a_source_is_written_once_and_no_folder_is_in_the_manifest(recipe, tmp_path):
    broken = tmp_path / "own" / "train-1.parquet"
    science(tmp_path / "own" / "train-0.parquet", 5)
    broken.write_bytes(b"no Parquet")
    out = tmp_path / "set.parquet"
    make(recipe({"own": {"path": str(tmp_path / "own"), "share": 1}}), out)
    parts = {file.name for file in out.with_suffix(".build").iterdir()}
    assert parts == {
        f"{name}.{kind}"
        for name in ("charts", "diagrams", "science", "own")
        for kind in ("parquet", "json")
    }
    text = manifest_of(out).read_text()
    assert str(tmp_path) not in text
    own = json.loads(text)["sources"]["own"]
    assert own["files_not_used"][0].startswith("train-1.parquet cannot be read as Parquet")
    assert json.loads(text)["recipe"]["sources"]["own"]["path"] == "own"


def test_pictures_of_the_benchmarks_are_left_out(recipe, tmp_path):
    suite = find_suite("nano").pick(["MMStar"])
    folder = data_folder(suite)
    index = BenchmarkIndex(suite, folder, lambda _: None)
    table = pq.read_table(tmp_path / "science" / "train-0.parquet").to_pylist()
    import base64

    import pandas as pd

    rows = pd.read_csv(folder / "MMStar.tsv", sep="\t")
    for row, encoded in zip(table[:5], rows["image"], strict=False):
        row["image"] = {"bytes": base64.b64decode(encoded), "path": None}
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "science" / "train-0.parquet")
    out = tmp_path / "set.parquet"
    manifest, _ = make(recipe(benchmarks="nano"), out, open_benchmarks=lambda: index)
    assert manifest["sources"]["science"]["in_benchmarks"] == 5
    assert manifest["sources"]["science"]["candidates"] == 25
    assert manifest["sources"]["charts"]["in_benchmarks"] == 0


def test_candidates_are_compared_again_when_a_benchmark_has_changed(recipe, tmp_path):
    suite = find_suite("nano").pick(["MMStar"])
    file = shutil.copy(data_folder(suite) / "MMStar.tsv", tmp_path / "MMStar.tsv")

    def index():
        return BenchmarkIndex(suite, tmp_path, lambda _: None)

    def compared_again():
        options = {"open_benchmarks": index, "benchmark_files": [file]}
        _, told = make(recipe(benchmarks="nano"), tmp_path / "set.parquet", **options)
        return any("candidates of" in note for note in told.notes)

    assert compared_again()
    assert not compared_again()
    os.utime(file, ns=(1, 1))
    assert compared_again()


def test_a_source_may_have_any_name(recipe, tmp_path):
    science(tmp_path / "more" / "train-0.parquet", 40)
    named = recipe({"drawn": {"path": "more", "share": 1}}, dev=6)
    manifest, _ = make(named, tmp_path / "set.parquet")
    assert manifest["sources"]["drawn"]["questions"]


@pytest.mark.parametrize(
    ("changes", "values", "message"),
    [
        ({"x": {"share": 1}}, {}, "sources.x needs hub or path, and not both"),
        ({"x": {"path": "nowhere"}}, {}, r"sources.x.path: .*nowhere does not exist"),
        (
            {"x": {"path": "science", "shares": 1}},
            {},
            "there is no setting 'sources.x.shares'",
        ),
        ({"x": {"path": "science", "share": -1}}, {}, "share=-1.0 must be above 0"),
        ({"x": {"hub": "lab/none"}}, {}, "the hub has no lab/none, or it is private"),
        ({"charts": {"hub": "lab/cauldron", "revision": "v9"}}, {}, "has no revision v9"),
        ({}, {"questions": 0}, "questions=0 must be at least 1"),
        ({}, {"pool": 0.5}, "pool=0.5 must be at least 1"),
        ({}, {"dev": -1}, "dev=-1 must not be negative"),
    ],
)
def test_what_cannot_be_built_is_one_line(recipe, tmp_path, changes, values, message):
    with pytest.raises(UserError, match=message):
        make(recipe(changes, **values), tmp_path / "set.parquet")


def test_the_shipped_recipe_is_whole():
    recipe = read_data_recipe("open-40k")
    assert (recipe.questions, recipe.dev) == (40_000, 600)
    assert sum(recipe.quotas(60_000).values()) == 60_000
    with pytest.raises(UserError, match="no recipe 'open'; known: open-40k"):
        read_data_recipe("open")


def test_a_benchmark_that_is_not_here_stops_it_before_anything_is_downloaded(
    recipe, tmp_path, monkeypatch
):
    """Its questions would have been let in without a word."""
    recipe(benchmarks="nano")
    data = tmp_path / "benchmarks"
    shutil.copytree(nano_folder() / "benchmarks", data)
    (data / "MMStar.tsv").unlink()
    monkeypatch.chdir(tmp_path)
    arguments = ["data", "build", "recipe.yaml", "--out", "set.parquet", "--data", str(data)]
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, UserError)
    assert "lacks MMStar.tsv" in str(done.exception)
    assert "rilbench data download" in str(done.exception)
    assert not (tmp_path / "set.build").exists()


@pytest.mark.integration  # starts the command twice
def test_the_command(recipe, hub, tmp_path):
    recipe()
    # A new interpreter, which reads these.
    hub_is = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": "."}
    shown = run("data", "build", "recipe.yaml", "--out", "set.parquet", "--dry-run", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "lab/cauldron" in shown.stdout
    assert "18 questions" in shown.stdout
    assert not (tmp_path / "set.parquet").exists()
    arguments = ("data", "build", "recipe.yaml", "--out", "set.parquet")
    done = run(*arguments, cwd=tmp_path, **hub_is)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == (
        "set.parquet: 18 questions; their sources in set.manifest.json"
    )
    hub.gated.add("datasets/lab/cauldron")
    shutil.rmtree(tmp_path / "set.build")
    refused(run(*arguments, cwd=tmp_path, **hub_is), "is gated")
