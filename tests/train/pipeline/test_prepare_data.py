import dataclasses
import json
import random

import pyarrow.parquet as pq
from collected import Notes, save

from rilbench.checkpoint import inspect_checkpoint
from rilbench.config import load_recipe
from rilbench.data.question import StoredQuestion
from rilbench.data.question_files import Question
from rilbench.data.row_files import mapped_column
from rilbench.paths import locate
from rilbench.train.discriminator_texts import SavedTexts
from rilbench.train.pipeline.collect_stage import (
    STUDENT,
    check_collection,
    student_collection,
    teacher_collections,
)
from rilbench.train.pipeline.prepare_data import pixel_limits, prepare_data, store_responses
from rilbench.train.pipeline.run_folder import open_run

QUESTIONS = [Question(name, (b"image",), f"{name}?", "yes", "test") for name in ("q1", "q2")]


def run_of(tmp_path, *overrides):
    return open_run(tmp_path / "r", load_recipe("both", "nano", overrides=overrides), resume=False)


def test_only_the_first_max_responses_are_used(tmp_path):
    for use, expected in ((0, 4), (1, 1), (3, 3)):
        run = run_of(tmp_path / str(use), f"teachers.max_responses={use}")
        collections = teacher_collections(run)
        for one in collections:
            save(one.plan, QUESTIONS[::-1], one.folder)
        saved = store_responses(run, collections, QUESTIONS)
        texts = mapped_column(run.folder / "data" / "responses.arrow")
        assert len(texts) == 2 * 2 * expected, "none is copied that is not used"
        for place, question in enumerate(QUESTIONS):
            assert {
                teacher: [texts[number] for number in numbers]
                for teacher, numbers in saved.of_question(place, ("72b", "78b")).items()
            } == {t: [f"{t} {question.id} {i}" for i in range(expected)] for t in ("72b", "78b")}


def test_each_method_collects_what_it_uses(tmp_path):
    student = inspect_checkpoint(locate("nano:restyled"))
    teachers, both = ["72b", "78b"], ["72b", "78b", STUDENT]
    expected = {
        (): both,
        ("method=imitation",): both,
        ("discriminator.pretrain_steps=0",): teachers,
        ("method=teacher-rows",): teachers,
        ("method=dr-grpo",): [],
        ("method=dr-grpo", "sft.steps=2"): teachers,
        ("method=dr-grpo", "sft.steps=2", "sft.data=x.parquet"): [],
        ("method=sft", "sft.steps=2"): teachers,
        ("method=gad",): both,
        ("method=opd",): [],
    }
    for i, (overrides, models) in enumerate(expected.items()):
        run = run_of(tmp_path / str(i), *overrides)
        collections = teacher_collections(run) + student_collection(run, student)
        assert [one.plan.model for one in collections] == models, overrides


def test_a_student_after_sft_is_not_collected_into_what_runs_share(tmp_path):
    student = inspect_checkpoint(locate("nano:restyled"))
    shared = f"collection.folder={tmp_path / 'shared'}"
    plain = run_of(tmp_path / "a", shared)
    after = run_of(tmp_path / "b", shared, "sft.steps=2")
    (own,) = student_collection(plain, student)
    (another,) = student_collection(plain, inspect_checkpoint(locate("nano:internvl")))
    assert own.folder == another.folder == tmp_path / "shared"
    assert own.file != another.file, "each student has its own responses"
    assert own.plan.name != another.plan.name, "and its own costs"
    assert student_collection(run_of(tmp_path / "c"), student)[0].file.name == "student.parquet"
    assert student_collection(after, student)[0].folder == after.folder / "collection"
    assert teacher_collections(after)[0].folder == tmp_path / "shared"


def test_pixel_limits_are_the_processors(tmp_path):
    forms = {
        "preprocessor_config.json": {"min_pixels": 3136, "max_pixels": 12845056},
        "processor_config.json": {"image_processor": {"size": {"shortest_edge": 784}}},
    }
    expected = ({"min_pixels": 3136, "max_pixels": 12845056}, {"min_pixels": 784})
    for (name, values), limits in zip(forms.items(), expected, strict=True):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text(json.dumps(values))
        assert pixel_limits(folder) == limits
    assert pixel_limits(tmp_path / "none") == {}


def test_pairs_are_of_one_question_where_many_have_the_same_text(tmp_path):
    asked = [dataclasses.replace(q, question="What is shown?") for q in QUESTIONS]
    run = run_of(tmp_path, "schedule.prompts_per_step=1", "method=gad")
    student = inspect_checkpoint(locate("nano:restyled"))
    collections = teacher_collections(run) + student_collection(run, student)
    for one in collections:
        save(one.plan, asked, one.folder)
    stored = [StoredQuestion(q, tmp_path / "pictures", 0) for q in asked]
    prepare_data(run, student, collections, stored, stored)
    pairs = SavedTexts.read(run.folder / "data", paired=True).sample(random.Random(1), 50)
    assert set(pairs.asked) == {"What is shown?"}
    for own, theirs in zip(pairs.responses[:50], pairs.responses[50:], strict=True):
        assert own.split()[1] == theirs.split()[1], "the question's id"


def test_routed_teachers_are_asked_their_own_sources_alone(tmp_path):
    """From the collection to the rows that verl reads, and the discriminator's pretraining set."""
    asked = [dataclasses.replace(q, source=s) for q, s in zip(QUESTIONS, "ab", strict=True)]
    routed = ("teachers.mix=routed", "teachers.routes={a: 78b, '*': 72b}")
    run = run_of(tmp_path, *routed, "schedule.prompts_per_step=1", "method=gad")
    student = inspect_checkpoint(locate("nano:restyled"))
    collections = teacher_collections(run) + student_collection(run, student)
    names = {one.plan.model: [q.id for q in one.asks(asked)] for one in collections}
    assert names == {"72b": ["q2"], "78b": ["q1"], STUDENT: ["q1", "q2"]}
    for one in collections:
        save(one.plan, one.asks(asked), one.folder)
        check_collection(run.recipe, one, asked, Notes())
    stored = [StoredQuestion(q, tmp_path / "pictures", 0) for q in asked]
    assert prepare_data(run, student, collections, stored, stored) == []
    rows = pq.read_table(run.folder / "data" / "train.parquet").to_pylist()
    saved = [[each["teacher"] for each in row["extra_info"]["saved"]] for row in rows]
    assert saved == [["78b"], ["72b"]]
    texts = SavedTexts.read(run.folder / "data", paired=True)
    assert set(texts.student) == set(texts.teacher) == {"0", "1"}
    pairs = texts.sample(random.Random(1), 50)
    for own, theirs, question in zip(
        pairs.responses[:50], pairs.responses[50:], pairs.asked[:50], strict=True
    ):
        teacher = {"q1?": "78b", "q2?": "72b"}[question]
        assert own.startswith(f"{STUDENT} {question[:2]} "), (own, question)
        assert theirs.startswith(f"{teacher} {question[:2]} "), (theirs, question)
