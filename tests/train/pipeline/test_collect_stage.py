"""The responses that a run uses: of the user's servers, of collections made elsewhere."""

import dataclasses
import json
import os
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from collected import Notes, response, save, stored
from fake_judge import fake_judge
from filelock import FileLock

from rilbench.config import load_recipe
from rilbench.data.question_files import Question
from rilbench.data.response_store import add_responses, read_manifest
from rilbench.data.row_files import mapped_column
from rilbench.errors import UserError
from rilbench.train.pipeline import collect_stage, prepare_data
from rilbench.train.pipeline.collect_stage import (
    check_collection,
    collect_all,
    find_servers,
    teacher_collections,
)
from rilbench.train.pipeline.prepare_data import (
    notes_on_recipe,
    notes_on_responses,
    store_responses,
)
from rilbench.train.pipeline.run_folder import Run

QUESTIONS = [Question(f"q{i}", (b"image",), f"{i}?", "yes", "test") for i in range(4)]


def run_of(folder, *settings, recipe="72b"):
    return Run(folder, load_recipe(recipe, "nano", None, settings))


def teacher_at(url, folder, *settings):
    """A run whose teacher has a hub name and is served at an address."""
    name = "teachers.models.72b=Big/Teacher-72B"
    return run_of(folder, name, f"collection.endpoints.72b={url}", *settings)


def answer(body):
    choice = {"message": {"content": f"said {body['seed']}"}, "finish_reason": "stop"}
    return 200, json.dumps({"choices": [choice], "usage": {"completion_tokens": 2}}).encode()


def test_a_server_of_another_model_is_refused_before_it_is_asked(tmp_path):
    with fake_judge(answer, ["Small/Teacher-7B"]) as server:
        run = teacher_at(server.url, tmp_path)
        with pytest.raises(UserError, match="serves Small/Teacher-7B, not Big/Teacher-72B") as told:
            collect_all(run, teacher_collections(run), QUESTIONS, Notes())
        assert server.seen == []
        assert f"collection.endpoints.72b=Small/Teacher-7B@{server.url}" in str(told.value)
        named = teacher_at(f"Small/Teacher-7B@{server.url}", tmp_path)
        assert set(find_servers(named.recipe, teacher_collections(named), QUESTIONS)) == {"72b"}
        other = teacher_at(f"Third@{server.url}", tmp_path)
        with pytest.raises(UserError, match="not Third"):
            find_servers(other.recipe, teacher_collections(other), QUESTIONS)


def test_a_server_that_is_down_and_an_address_that_is_malformed(tmp_path):
    for address, words in (("http://127.0.0.1:9/v1", "is not reached"), ("nowhere", "MODEL@URL")):
        run = teacher_at(address, tmp_path)
        with pytest.raises(UserError, match=words):
            find_servers(run.recipe, teacher_collections(run), QUESTIONS)


def test_a_whole_collection_is_only_read(tmp_path):
    """It may be in a read-only place, or in use by a run that adds to it for hours."""
    run = run_of(tmp_path)
    one, notes = saved(run, set()), Notes()
    with FileLock(one.folder.with_name(f".{one.folder.name}.lock")):
        collect_all(run, [one], QUESTIONS, notes)
    assert not any("waiting" in said for said in notes.said)


def test_a_finished_collection_needs_no_teacher_and_fits_any_student(tmp_path, monkeypatch):
    shared = f"collection.folder={tmp_path / 'shared'}"
    monkeypatch.setenv("RILBENCH_ENDPOINT_KEY", "sk-teacher")
    with fake_judge(answer, ["x", "Big/Teacher-72B"]) as server:
        run = teacher_at(server.url, tmp_path / "a", shared)
        collect_all(run, teacher_collections(run), QUESTIONS, Notes())
        assert len(server.seen) == 1 + 4 * 4, "a probe, and each response"
        assert {body["model"] for body in server.seen} == {"Big/Teacher-72B"}
        assert server.keys == {"Bearer sk-teacher"}
    file = tmp_path / "shared" / "72b.parquet"
    assert "sk-teacher" not in json.dumps(read_manifest(file))
    assert server.url not in json.dumps(read_manifest(file)), "it may be used elsewhere"

    # No server, no weights, another student: what was collected is enough.
    again = run_of(tmp_path / "b", "teachers.models.72b=Big/Teacher-72B", shared)
    other = dataclasses.replace(again.recipe, student=load_recipe("72b", "qwen2.5-vl-3b").student)
    for recipe in (again.recipe, other):
        (one,) = teacher_collections(Run(tmp_path / "b", recipe))
        assert one.index(QUESTIONS).missing(0) == []
    # Other settings are refused by name, before anything is asked.
    settings = ("teachers.models.72b=Big/Teacher-72B", shared, "sampling.temperature=0.5")
    hot = run_of(tmp_path / "c", *settings)
    with pytest.raises(UserError, match=r"sampling.temperature=1.0 \(asked: 0.5\)"):
        find_servers(hot.recipe, teacher_collections(hot), QUESTIONS)
    unknown = run_of(tmp_path / "d", "teachers.models.72b=Third/Model", shared)
    with pytest.raises(UserError, match="not on this machine"):
        teacher_collections(unknown)


def saved(run, failing):
    """A teacher's collection, with failures at (question, sample)."""
    (one,) = teacher_collections(run)
    save(one.plan, QUESTIONS, one.folder, failing)
    return one


def test_best_of_one_step_and_dev_that_is_trained_on_are_told():
    settings = ["schedule.export=best", "schedule.eval_every=50", "data.dev=nano:prompts.parquet"]
    dev, best = notes_on_recipe(load_recipe("both", "nano", overrides=settings))
    assert dev.startswith("data.dev is data.train")
    assert best.startswith("schedule.export=best has only the last step to choose from")
    settings[1] = "schedule.eval_every=10"
    assert notes_on_recipe(load_recipe("both", "nano", overrides=settings)) == [dev]


def test_notes_count_the_questions_with_too_few_responses(tmp_path):
    assert notes_on_recipe(run_of(tmp_path).recipe) == []
    few = run_of(tmp_path / "few", "teachers.max_responses=2").recipe
    (note,) = notes_on_recipe(few)
    assert note.startswith("a group may take 4 responses of one teacher and 2 are saved")
    assert notes_on_recipe(run_of(tmp_path, "teachers.max_responses=2", recipe="both").recipe) == []
    run = run_of(tmp_path / "some", "collection.max_failed=0.5")
    one = saved(run, {("q1", 0), *(("q3", i) for i in range(4))})
    responses = store_responses(run, [one], QUESTIONS)
    texts = mapped_column(run.folder / "data" / "responses.arrow")
    of_q1 = responses.of_question(1, ("72b",))["72b"]
    assert [texts[number] for number in of_q1] == ["72b q1 1", "72b q1 2", "72b q1 3"]
    some, none = notes_on_responses(run.recipe, responses, QUESTIONS)
    assert some.startswith("1 of 4 questions have fewer responses of 72b than the 4")
    assert none == "1 of 4 questions have no response of 72b: they are left out"
    notes = Notes()
    check_collection(run.recipe, one, QUESTIONS, notes)
    assert notes.said == ["72b: 5 of 16 responses failed (empty 5)"]
    strict = dataclasses.replace(run.recipe.collection, max_failed=0.05)
    with pytest.raises(UserError, match=r"lacks 5 of 16 responses \(first: to 'q1'\).*--resume"):
        check_collection(dataclasses.replace(run.recipe, collection=strict), one, QUESTIONS, notes)


@pytest.mark.parametrize("new", ["late", ""])
def test_rows_that_move_while_they_are_read_are_read_again(tmp_path, monkeypatch, new):
    """Another run of a shared collection has got a response in the place of a failure."""
    run = run_of(tmp_path, "collection.max_failed=0.5")
    one = saved(run, {("q0", 0), ("q3", 3)})
    read, keys = prepare_data.read_responses, [("q0", 0), ("q3", 3)]

    def moved(path, rows):
        if keys:
            failure = "" if new else "empty"
            rest = [response(one.plan, QUESTIONS[0], 0, new, failure)]
            add_responses(one.plan, one.folder, rest, {keys.pop(0)})
            keys.clear()
        yield from read(path, rows)

    monkeypatch.setattr(prepare_data, "read_responses", moved)
    responses = store_responses(run, [one], QUESTIONS)
    texts = mapped_column(run.folder / "data" / "responses.arrow")
    for place in range(4):
        found = [texts[number] for number in responses.of_question(place, ("72b",))["72b"]]
        first = [new] if new and not place else [f"72b q{place} 0"][: place > 0]
        assert found == first + [f"72b q{place} {i}" for i in (1, 2, 3)][: 3 - (place == 3)]


def test_questions_without_a_response_are_left_out_of_training(tmp_path):
    import pyarrow.parquet as pq

    from rilbench.checkpoint import inspect_checkpoint
    from rilbench.paths import locate

    run = run_of(tmp_path, "discriminator.pretrain_steps=0", "schedule.prompts_per_step=3")
    one = saved(run, {("q3", i) for i in range(4)})
    student = inspect_checkpoint(locate("nano:restyled"))
    questions = stored(QUESTIONS, tmp_path / "data" / "pictures.arrow")
    notes = prepare_data.prepare_data(run, student, [one], questions, questions)
    assert notes == ["1 of 4 questions have no response of 72b: they are left out"]
    table = pq.read_table(tmp_path / "data" / "train.parquet").to_pylist()
    assert [row["extra_info"]["question_id"] for row in table] == ["q0", "q1", "q2"]
    assert len(pq.read_table(tmp_path / "data" / "dev.parquet")) == 4
    more = run_of(tmp_path, "discriminator.pretrain_steps=0", "schedule.prompts_per_step=4")
    with pytest.raises(UserError, match="the 3 that remain are fewer than one step's 4"):
        prepare_data.prepare_data(more, student, [one], questions, questions)


def test_a_teachers_text_is_read_by_the_students_tokenizer(tmp_path):
    """Of another vocabulary only the text is taken: never its ids, its count, its marks."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoTokenizer

    from rilbench.model.inputs import teacher_tokens
    from rilbench.paths import locate

    student = AutoTokenizer.from_pretrained(locate("nano:restyled"))
    teacher = Tokenizer(models.WordLevel({"七": 0, "is": 1, "it": 2}, unk_token="it"))
    teacher.pre_tokenizer = pre_tokenizers.Whitespace()
    for text in ("it is 七", "Ünï 🙂 7\n", "see <|image_pad|> and <|im_end|> here"):
        tokens = teacher_tokens(student, text, 512)
        assert tokens[-1] == student.eos_token_id
        assert student.decode(tokens[:-1]) == text
        assert not set(tokens[:-1]) & set(student.all_special_ids), "a mark in a text is a text"
        assert tokens[:-1] != teacher.encode(text).ids
        cut = teacher_tokens(student, text, 3)
        assert cut == tokens[:3], "longer than the student may answer: cut, without its end"


def test_each_copy_that_the_run_serves_has_its_own_requests(tmp_path, monkeypatch):
    """Eight copies on eight devices, of a teacher that fits on one."""
    run = Run(tmp_path, load_recipe("72b", "nano", None, [], "1x8-80gb"))
    asked = {}

    @contextmanager
    def served(run, name, path, layout, progress):
        asked["copies"] = layout.data_parallel
        yield SimpleNamespace(base_url="u", model="m", transformers=False, pid=os.getpid())

    async def answered(plan, questions, folder, server, on_answer, **_):
        asked["in flight"] = server.concurrency
        return save(plan, questions, folder)

    monkeypatch.setattr(collect_stage, "started", served)
    monkeypatch.setattr(collect_stage, "collect", answered)
    monkeypatch.setattr("rilbench.train.pipeline.teacher_servers.vllm_python", lambda: "python")
    collect_all(run, teacher_collections(run), QUESTIONS, Notes())
    assert asked == {"copies": 8, "in flight": 8 * 32}
