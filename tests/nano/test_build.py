import json
from dataclasses import asdict

import pytest

from rilbench.checkpoint import inspect_checkpoint
from rilbench.data.question_files import read_questions
from rilbench.errors import UserError
from rilbench.nano.build import MODELS, SHIPPED, build
from rilbench.nano.data import BENCHMARK_FILES
from rilbench.paths import nano_folder


def test_the_shipped_models_are_complete_and_small():
    manifest = json.loads((nano_folder() / "manifest.json").read_text())
    for name in SHIPPED:
        checkpoint = inspect_checkpoint(nano_folder() / name)
        assert checkpoint.fingerprint == manifest["fingerprints"][name], "the weights are the built"
        assert (checkpoint.path / "model.safetensors").stat().st_size < 4_000_000
        labels = checkpoint.labels
        assert (labels.method, labels.teacher) == ("base", "none")
    assert inspect_checkpoint(nano_folder() / "restyled").labels.student == "nano"
    prompts = read_questions(nano_folder() / "prompts.parquet")
    dev = read_questions(nano_folder() / "dev.parquet")
    assert not {q.id for q in prompts} & {q.id for q in dev}
    assert not {q.images for q in prompts} & {q.images for q in dev}
    for name in BENCHMARK_FILES:
        assert (nano_folder() / "benchmarks" / f"{name}.tsv").exists()


def test_the_shipped_models_were_built_by_this_code():
    manifest = json.loads((nano_folder() / "manifest.json").read_text())
    configs = {name: asdict(config) for name, (_, config) in MODELS.items()}
    expected = json.loads(json.dumps(configs))
    assert {name: model["config"] for name, model in manifest["models"].items()} == expected


def test_the_small_models_differ_as_the_experiments_need():
    models = json.loads((nano_folder() / "manifest.json").read_text())["models"]
    mean = {name: sum(m["dev_accuracy"].values()) / 14 for name, m in models.items()}
    assert min(mean["72b"], mean["78b"]) > mean["restyled"] + 0.1
    dev = {name: models[name]["dev_accuracy"] for name in ("72b", "78b")}
    better = {f for f in dev["72b"] if dev["72b"][f] > dev["78b"][f]}
    assert len(better) >= 4
    assert len(dev["72b"].keys() - better) >= 4
    assert min(models[name]["worked_share_of_samples"] for name in ("72b", "78b")) > 0.95
    assert models["restyled"]["worked_share_of_samples"] < 0.05


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="choose another --out"):
        build(tmp_path, lambda *_: None)
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_path_of_a_build(tmp_path):
    seen = []
    build(tmp_path / "lab", lambda *event: seen.append(event), scale=0.003)
    assert {what.split(" ")[0] for what, _, _ in seen} >= set(MODELS)
    assert all(done <= total for _, done, total in seen)
    for name in SHIPPED:
        inspect_checkpoint(tmp_path / "lab" / name)
    assert [p.name for p in tmp_path.iterdir()] == ["lab"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_rebuild_scores_like_the_shipped_models(tmp_path):
    build(tmp_path / "lab", lambda *_: None)
    shipped, rebuilt = (
        json.loads((folder / "manifest.json").read_text())["models"]
        for folder in (nano_folder(), tmp_path / "lab")
    )
    for name in SHIPPED:
        means = [sum(m[name]["dev_accuracy"].values()) / 14 for m in (shipped, rebuilt)]
        assert means[0] == pytest.approx(means[1], abs=0.03), name
