import json

import pytest

from rilbench.checkpoint import inspect_checkpoint
from rilbench.errors import UserError
from rilbench.locations import nano_folder
from rilbench.nano.build import COURSES, build
from rilbench.nano.data import BENCHMARK_FILES
from rilbench.teachers.questions import read_questions


def test_what_ships_is_complete_and_small():
    manifest = json.loads((nano_folder() / "manifest.json").read_text())
    for name in COURSES:
        checkpoint = inspect_checkpoint(nano_folder() / name)
        assert checkpoint.fingerprint == manifest["fingerprints"][name], "the weights are the built"
        assert (checkpoint.path / "model.safetensors").stat().st_size < 4_000_000
    student = inspect_checkpoint(nano_folder() / "student").labels
    assert (student.student, student.method, student.teacher) == ("nano", "base", "none")
    prompts = read_questions(nano_folder() / "prompts.parquet")
    dev = read_questions(nano_folder() / "dev.parquet")
    assert not {q.id for q in prompts} & {q.id for q in dev}
    assert not {q.images for q in prompts} & {q.images for q in dev}
    for name in BENCHMARK_FILES.values():
        assert (nano_folder() / "benchmarks" / f"{name}.tsv").exists()


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="choose another --out"):
        build(tmp_path, lambda *_: None)
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_path_of_a_build(tmp_path):
    seen = []
    build(tmp_path / "lab", lambda *event: seen.append(event), scale=0.003)
    assert {what.split(" ")[0] for what, _, _ in seen} >= set(COURSES)
    assert all(done <= total for _, done, total in seen)
    for name in COURSES:
        inspect_checkpoint(tmp_path / "lab" / name)
    assert [p.name for p in tmp_path.iterdir()] == ["lab"]
