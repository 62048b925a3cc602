"""``rilbench push``: a run on the hub, with a card made from its folder and the ledger."""

import json
import shutil

import pytest
import yaml
from command import refused, run
from hub_server import TOKEN

from rilbench import publish
from rilbench.config import load_recipe, read_recipe
from rilbench.errors import UserError
from rilbench.judge.code_judges import find_judge
from rilbench.ledger import Evaluation, Ledger, Score
from rilbench.paths import nano_folder
from rilbench.train.pipeline.run_folder import open_run

MANIFEST = {
    "questions": 40,
    "questions_sha256": "d" * 64,
    "recipe": {"sources": {"charts": {"hub": "lab/charts"}, "ours": {"hub": ""}}},
    "sources": {
        "charts": {"revision": "a" * 40, "license": "cc-by-4.0", "questions": 30},
        "ours": {"revision": "b" * 40, "license": "", "questions": 10},
    },
}


JUDGE = "def decide(question, reference, response):\n    return float(reference == response)\n"


@pytest.fixture
def trained(tmp_path):
    """A run's folder as training leaves it, but with the untrained student in it."""
    settings = [
        f"data.train={tmp_path / 'mine.parquet'}",
        "judge.url=http://10.0.0.7:8000/v1",
        f"judge.model={tmp_path / 'judge.py'}:decide",
        f"reward.extra=[{tmp_path / 'own' / 'judge.py'}:brevity]",
        "judge.serve=--chat-template /private/template",
        "collection.serve.72b=--chat-template /private/template",
        f"teachers.models.72b={tmp_path / 'teacher-72b'}",
        "sft.steps=1",
        f"sft.data={tmp_path / 'a.parquet'},{tmp_path / 'b.parquet'}",
        "group_size=2",
    ]
    (tmp_path / "judge.py").write_text(JUDGE)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "judge.py").write_text("brevity = len\n")
    (tmp_path / "mine.parquet").touch()
    (tmp_path / "mine.manifest.json").write_text(json.dumps(MANIFEST))
    recipe = load_recipe("both", "nano", None, settings)
    folder = tmp_path / "runs" / "mine"
    open_run(folder, recipe, resume=False)
    shutil.copytree(nano_folder() / "restyled", folder / "checkpoint")
    labels = {"student": "nano", "method": "ril", "teacher": "both", "run": "mine", "seed": 0}
    (folder / "checkpoint" / "rilbench.json").write_text(json.dumps(labels))
    export = {"step": 30, "choice": "last", "dev_accuracy": None, "steps": 30}
    (folder / "checkpoint" / "export.json").write_text(json.dumps(export))
    (tmp_path / "mine.manifest.json").unlink()  # the run has kept it
    return folder


def evaluation(fingerprint, **values):
    score = Score(
        benchmark="MMStar",
        value=61.25,
        kit="ms-vlmeval",
        kit_version="0.0.19",
        dataset="MMStar",
        metric="acc",
        questions=1500,
        answered=1500,
        missing=0,
        judge="gpt",
        data_sha256="c" * 64,
        data_state="published",
    )
    given = {"suite": "paper", "created": "2026-11-01T00:00:00Z", "scores": (score,), **values}
    labels = {"student": "nano", "method": "ril", "teacher": "both"}
    return Evaluation(path="x", fingerprint=fingerprint, **labels, **given)


def test_the_card_has_scores_settings_data_and_differences(trained, tmp_path):
    found = publish.read_run(trained)
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.record(evaluation(found.checkpoint.fingerprint, created="2026-10-01T00:00:00Z"))
        ledger.record(evaluation(found.checkpoint.fingerprint))
        ledger.record(evaluation("another model"))
        evaluations = publish.evaluations_of(found, ledger)
    assert [each.created for each in evaluations] == ["2026-11-01T00:00:00Z"]
    card = publish.model_card("me/small", found, evaluations)
    front = yaml.safe_load(card.split("---")[1])
    assert front["datasets"] == ["lab/charts"]
    (result,) = front["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "acc", "value": 61.25}]
    assert "| MMStar | 61.2 | 1500 | 0 | gpt | published, cccccccccccc |" in card
    assert "| charts | lab/charts | aaaaaaaaaaaa | cc-by-4.0 | 30 |" in card
    digest = found.recipe.data.manifests["train"]
    assert "data.train: 40 questions, built as [mine.manifest.json]" in card
    assert f"(digest {digest})" in card
    assert "sft.data: questions of `a.parquet`, `b.parquet`; no manifest says" in card
    assert "| `group_size` | 4 | 2 |" in card
    assert "| `schedule.steps` | 1000 | 30 |" in card
    assert "| `collection.teacher_responses` | 16 | 4 |" in card
    assert "nano:restyled, trained for 30 steps by `ril`" in card
    assert "| judge | functions/judge.py:decide |" in card
    text = card + publish.public_recipe(found.recipe).to_yaml()
    assert not [word for word in ("10.0.0.7", str(tmp_path), "/private") if word in text]


def test_checkpoint_and_card_are_published(trained, hub, monkeypatch):
    found = publish.read_run(trained)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    card = publish.model_card("me/small", found, [])
    url = publish.push(found, "me/small", card, collections=False, private=True)
    stored = hub.repos["models/me/small"]
    assert url.endswith("/me/small")
    weights = "model.safetensors"
    assert (stored / weights).read_bytes() == (trained / "checkpoint" / weights).read_bytes()
    assert (stored / "README.md").read_text() == card
    assert json.loads((stored / "mine.manifest.json").read_text()) == MANIFEST
    recipe = read_recipe(stored / "recipe.yaml")
    assert recipe.group_size == 2
    assert recipe.judge.model == "functions/judge.py:decide"
    assert recipe.reward.extra == ("functions/1/judge.py:brevity",)
    assert (stored / "functions" / "judge.py").read_text() == JUDGE
    assert (stored / "functions" / "1" / "judge.py").read_text() == "brevity = len\n"
    monkeypatch.chdir(stored)
    assert find_judge(recipe.judge.model).decide("?", "3", "3") == 1
    with pytest.raises(UserError, match="has no collection; there is nothing to publish"):
        publish.push(found, "me/rows", card, collections=True, private=True)


def test_collections_are_published_with_a_card(trained, hub, monkeypatch):
    folder = trained / "collection"
    folder.mkdir()
    (folder / "72b.parquet").write_bytes(b"rows")
    (folder / "72b.json").write_text('{"model": "a teacher", "responses": 16}')
    (folder / "cost.json").write_text("{}")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    found = publish.read_run(trained)
    card = publish.collection_card("me/rows", found)
    assert '"responses": 16' in card
    publish.push(found, "me/rows", card, collections=True, private=True)
    stored = hub.repos["datasets/me/rows"]
    assert (stored / "72b.parquet").read_bytes() == b"rows"


def test_the_command_prints_the_card_and_refuses_what_is_no_run(trained, tmp_path):
    done = run("push", "mine", "--to", "me/small", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "## Differences to the paper" in done.stdout
    refused(run("push", "other", "--to", "me/x", cwd=tmp_path), "is not the folder of a run")
    (trained / "checkpoint" / "export.json").unlink()
    refused(run("push", "mine", "--to", "me/x", cwd=tmp_path), "has no exported checkpoint")
