"""The real kit on data files as users have them: what is wrong is named before it is spent on."""

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from user_pictures import BROKEN, sizes_seen, user_pictures

from rilbench.errors import UserError
from rilbench.evaluate.kits import find_kit
from rilbench.evaluate.kits.base import prompts_job, read_scores, score_job
from rilbench.evaluate.kits.environment import ensure_environment
from rilbench.evaluate.kits.worker_process import KitProcess
from rilbench.evaluate.suite import VLMEVALKIT, Dataset, find_suite
from rilbench.judge.server import RULE_JUDGE

KIT = find_kit(VLMEVALKIT)
PICTURE = base64.b64encode(user_pictures()["palette"]).decode()


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KitProcess]:
    log = tmp_path_factory.mktemp("kit") / "log"
    with KIT.start(ensure_environment(KIT.name), log, lambda: ("", "")) as it:
        yield it


def named(name: str) -> list[Dataset]:
    return [dataset for dataset in find_suite("nano").datasets if dataset.name == name]


def put(table: pd.DataFrame, folder: Path, name: str = "MMStar") -> None:
    """A data file where a job in the folder reads it."""
    (folder / "LMUData").mkdir(exist_ok=True)
    table.to_csv(folder / "LMUData" / f"{name}.tsv", sep="\t", index=False)


def asked(kit: KitProcess, folder: Path, name: str = "MMStar") -> dict[str, dict[str, Any]]:
    """The lines of a prompts job by question."""
    kit.run("prompts", prompts_job(KIT, named(name), folder, folder))
    lines = (folder / "questions.jsonl").read_text().splitlines()
    return {row["question_id"]: row for row in map(json.loads, lines)}


@pytest.fixture
def table(data: Path) -> pd.DataFrame:
    return pd.read_csv(data / "MMStar.tsv", sep="\t")


def test_bad_data_is_named(kit: KitProcess, table: pd.DataFrame, tmp_path: Path) -> None:
    put(table.assign(index=[0, 1, 2, 0]), tmp_path)
    with pytest.raises(UserError, match=r"MMStar\.tsv has index 0 twice"):
        asked(kit, tmp_path)
    put(table.assign(index=["0", "1", "../../2", "3"]), tmp_path)
    with pytest.raises(UserError, match=r"index '\.\./\.\./2', a path"):
        asked(kit, tmp_path)
    outside = table.drop(columns="image").assign(image_path=str(Path(__file__)))
    put(outside, tmp_path)
    with pytest.raises(UserError, match="a picture outside of their folder"):
        asked(kit, tmp_path)


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("MMStar", ["index", "question", "answer", "image", "A", "D"]),
        ("MMVet", ["category"]),
        ("MMVetV2", ["category"]),
        ("MathVista_MINI", ["task", "skills", "question_type", "answer_type", "choices"]),
        ("MMMU_Pro_10c", ["J"]),
        ("MMBench_DEV_EN", ["B"]),
    ],
)
def test_a_missing_column_is_named(
    kit: KitProcess, data: Path, tmp_path: Path, name: str, columns: list[str]
) -> None:
    """Before the model is asked anything: without options, or for a score that cannot be made."""
    whole = pd.read_csv(data / f"{name}.tsv", sep="\t")
    for column in columns:
        put(whole.drop(columns=column), tmp_path, name)
        with pytest.raises(UserError, match=rf"^{name}\.tsv has no column '{column}'; make"):
            asked(kit, tmp_path, name)


def test_pictures_as_users_have_them(kit: KitProcess, table: pd.DataFrame, tmp_path: Path) -> None:
    """Converted where the kit could not read them; a broken one is its own question's problem."""
    files = {name: base64.b64encode(file).decode() for name, file in user_pictures().items()}
    # What is no picture: no base64 at all, a short text, a list that is none, nothing.
    broken = {"no64": "é!" * 90, "short": "iVBORw0KGgo=", "list": f"['{PICTURE}'", "blank": "  "}
    broken |= {"code": f"[print(1), '{PICTURE}']", "none": "[]", "other": "absent"}
    pictures = files | broken
    rows = table.iloc[[0] * len(pictures)]
    put(rows.assign(index=list(pictures), image=list(pictures.values())), tmp_path)
    found = asked(kit, tmp_path)
    assert {name for name, row in found.items() if row["problem"]} == {*BROKEN, *broken}
    assert list(found) == list(pictures), "none is left out"
    assert all("picture cannot be read" in found[name]["problem"] for name in {*BROKEN, *broken})
    assert "there is none" in found["empty"]["problem"]
    assert "'iVBORw0KGgo=' is neither" in found["short"]["problem"]
    for name, size in sizes_seen().items():
        with Image.open(tmp_path / found[name]["parts"][0]["path"]) as picture:
            assert picture.mode in {"RGB", "L"}, name
            assert picture.size == size, name


def test_a_question_without_a_picture_is_missing_from_the_score(
    kit: KitProcess, table: pd.DataFrame, tmp_path: Path
) -> None:
    put(table.assign(image=[PICTURE, None, "0", "1"]), tmp_path)
    found = asked(kit, tmp_path)
    assert [name for name, row in found.items() if row["problem"]] == ["1", "3"]
    answers = {"MMStar": {"0": "A", "1": "", "2": "C", "3": ""}}
    (tmp_path / "out").mkdir()
    job = prompts_job(KIT, named("MMStar"), tmp_path, tmp_path)
    kit.run("score", score_job(job, tmp_path / "out", answers, ("", RULE_JUDGE, False)))
    score = read_scores(KIT, tmp_path / "out" / "result.json", named("MMStar"))[1]["MMStar"]
    assert len(score.outcomes) == 4
    lost = score.with_value(None, {"1", "3"})
    assert (lost.value, lost.missing) == (100, 2)


def test_what_the_kit_makes_no_prompt_of_is_no_broken_picture(
    kit: KitProcess, data: Path, tmp_path: Path
) -> None:
    rows = pd.read_csv(data / "MMMU_DEV_VAL.tsv", sep="\t")
    put(rows.assign(question="Compare <image 1> and <image 2>."), tmp_path, "MMMU_DEV_VAL")
    problems = {row["problem"] for row in asked(kit, tmp_path, "MMMU_DEV_VAL").values()}
    (problem,) = problems
    assert problem == "the kit makes no prompt of it (IndexError: list index out of range)"


@pytest.mark.parametrize("climb", ["../../../escaped.png", "a/../../../../escaped.png", "absolute"])
@pytest.mark.parametrize("several", [False, True])
def test_no_picture_is_written_outside_of_its_folder(
    kit: KitProcess, table: pd.DataFrame, tmp_path: Path, climb: str, several: bool
) -> None:
    home = tmp_path / "deep" / "job"
    home.mkdir(parents=True)
    path = str(tmp_path / "escaped.png") if climb == "absolute" else climb
    images, paths = (PICTURE, path) if not several else (str([PICTURE] * 2), str(["x.png", path]))
    put(table.assign(image=images, image_path=paths), home)
    with pytest.raises(UserError, match=r"^MMStar\.tsv names a picture outside of its folder, "):
        asked(kit, home)
    assert not list(tmp_path.rglob("*escaped*"))
    assert not list(tmp_path.rglob("*.png"))


LARGE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import vlmeval.dataset.image_base as base
base.file_size = lambda *_: 2  # Gigabytes.
import vlmevalkit_worker as worker
prompts, score = json.load(open(sys.argv[2]))
worker.write_prompts(prompts)
worker.score(score)
"""


def large(folder: Path, jobs: list[dict[str, Any]]) -> "subprocess.CompletedProcess[str]":
    """What the worker says to a prompts job and a score job of a file above 1 GB."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    python = ensure_environment(KIT.name)
    command = [str(python), "-c", LARGE, str(KIT.worker.parent), str(folder / "jobs.json")]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_a_large_file_is_scored(table: pd.DataFrame, tmp_path: Path) -> None:
    """Of a file above 1 GB the kit writes the pictures elsewhere and drops their column. What is
    wrong with them is their own questions' problem there, too."""
    pictures = {name: base64.b64encode(file).decode() for name, file in user_pictures().items()}
    pictures |= {"no64": "é!" * 90, "list": f"['{PICTURE}'", "blank": "  ", "other": "absent"}
    pictures |= {"several": str([PICTURE] * 2), "same": "cmyk"}
    rows = table.iloc[[0] * len(pictures)]
    put(rows.assign(index=list(pictures), image=list(pictures.values())), tmp_path)
    job = prompts_job(KIT, named("MMStar"), tmp_path, tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    answers = {"MMStar": {name: "A" if name < "m" else "B" for name in pictures}}
    done = large(tmp_path, [job, score_job(job, out, answers, ("", RULE_JUDGE, False))])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "LMUData" / "MMStar_local.tsv").exists()
    lines = map(json.loads, (tmp_path / "questions.jsonl").read_text().splitlines())
    found = {row["question_id"]: row for row in lines}
    assert list(found) == list(pictures), "none is left out"
    broken = {*BROKEN, "no64", "list", "blank", "other"}
    assert {name for name, row in found.items() if row["problem"]} == broken
    for name, size in {**sizes_seen(), "same": (30, 10), "several": (30, 10)}.items():
        with Image.open(tmp_path / found[name]["parts"][0]["path"]) as picture:
            assert picture.size == size, name
    score = read_scores(KIT, out / "result.json", named("MMStar"))[1]["MMStar"]
    assert (len(score.outcomes), score.missing) == (len(pictures), 0)
    assert {each.question_id for each in score.outcomes if each.value} == {
        name for name in pictures if name < "m"
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_path": "../../escaped.png"}, "names a picture outside of its folder"),
        ({"index": ["0", "1", "../../escaped", "3"]}, "has index '../../escaped', a path"),
    ],
)
def test_nor_of_a_large_file(
    table: pd.DataFrame, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    home = tmp_path / "deep" / "job"
    home.mkdir(parents=True)
    put(table.assign(**changes), home)
    done = large(home, [prompts_job(KIT, named("MMStar"), home, home), {}])
    assert words in done.stderr
    assert not list(tmp_path.rglob("*.png"))
    assert not list(tmp_path.rglob("*.jpg"))
