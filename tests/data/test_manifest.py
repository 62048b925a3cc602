"""The manifest of a built training set is a part of the run that uses it."""

import json

import pytest

from rilbench.config import load_recipe, read_recipe
from rilbench.data.manifest import (
    digest_of,
    kept_manifests,
    manifest_beside,
    manifest_of,
    with_manifests,
)
from rilbench.data.question_files import Question, write_questions
from rilbench.data.stored_questions import QuestionScan
from rilbench.errors import UserError
from rilbench.train.pipeline.ledger_summary import summary
from rilbench.train.pipeline.run_folder import open_run

QUESTIONS = [Question(f"q{i}", (b"\x89PNG",), f"{i}?", "yes", "charts") for i in range(4)]


def built(path, revision="a", questions=QUESTIONS):
    """A file of questions with a manifest, as ``rilbench data build`` writes them."""
    write_questions(path, questions)
    source = {"revision": revision * 40, "license": "mit", "questions": len(questions)}
    values = {
        "recipe": {"sources": {"charts": {"hub": "lab/charts"}}},
        "questions": len(questions),
        "questions_sha256": digest_of(questions),
        "sources": {"charts": source},
    }
    manifest_of(path).write_text(json.dumps(values, indent=2))
    return path


def nano(*settings):
    return load_recipe("both", "nano", None, settings)


def test_the_digest_is_a_part_of_the_fingerprint(tmp_path):
    file = built(tmp_path / "set.parquet")
    plain = nano(f"data.train={file}")
    recipe = with_manifests(plain)
    assert recipe.data.manifests == {"train": manifest_beside(file).digest}
    built(file, "b")
    other = with_manifests(plain)
    assert len({plain.fingerprint, recipe.fingerprint, other.fingerprint}) == 3
    assert recipe.family != other.family
    assert with_manifests(nano()).fingerprint == nano().fingerprint
    manifest = manifest_of(file)
    manifest.write_text(json.dumps(json.loads(manifest.read_text())))
    assert with_manifests(plain) == other, "of the content, not of its layout"
    with pytest.raises(UserError, match=r"data\.manifests\.train=\w+, and the manifest beside"):
        with_manifests(recipe)


def test_several_files_have_their_digests_joined(tmp_path):
    built(tmp_path / "a.parquet")
    built(tmp_path / "b.parquet", "b")
    write_questions(tmp_path / "c.parquet", QUESTIONS)
    recipe = with_manifests(nano(f"data.train={tmp_path}/*.parquet", f"data.dev={tmp_path}/gone"))
    digests = [manifest_beside(tmp_path / f"{name}.parquet").digest for name in "ab"]
    assert recipe.data.manifests == {"train": "+".join(digests)}


def test_the_run_keeps_it_and_goes_on_with_no_other(tmp_path):
    file = built(tmp_path / "set.parquet")
    recipe, folder = nano(f"data.train={file}"), tmp_path / "runs" / "a"
    run = open_run(folder, recipe, resume=False)
    digest = manifest_beside(file).digest
    assert read_recipe(folder / "recipe.yaml").data.manifests == {"train": digest}
    (kept,) = kept_manifests(folder)["train"]
    assert (kept.file, kept.digest) == (file, digest)
    assert summary(run, "running").metrics["data"] == {
        "train": {digest: {"charts": f"lab/charts@{'a' * 12}, 4 questions"}}
    }
    assert open_run(folder, recipe, resume=True) == run
    built(file, "b")
    with pytest.raises(UserError, match=rf"manifest {digest} beside data\.train, and now it is"):
        open_run(folder, recipe, resume=True)
    manifest_of(file).unlink()
    with pytest.raises(UserError, match=r"and now it is none; build the questions as they were"):
        open_run(folder, recipe, resume=True)


def test_a_manifest_of_other_questions_is_refused(tmp_path):
    plain, file = tmp_path / "plain.parquet", built(tmp_path / "set.parquet")
    write_questions(plain, [Question("p", (b"\x89PNG",), "?", "no", "own")])
    scan = QuestionScan([plain, file], tmp_path / "pictures", 0)
    list(scan)
    assert [len(questions) for questions in scan.by_file.values()] == [1, 4]
    manifest_beside(file).check(scan.by_file[file])
    with pytest.raises(UserError, match=r"set\.manifest\.json beside it says: its questions were"):
        manifest_beside(file).check(scan.by_file[plain])
    manifest_of(file).write_text("{}")
    with pytest.raises(UserError, match="is not a manifest of rilbench data build"):
        manifest_beside(file)
