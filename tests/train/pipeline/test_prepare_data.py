import json

from rilbench.config import load_recipe
from rilbench.data.question_files import Question
from rilbench.data.response_store import SavedResponse
from rilbench.train.pipeline.collect_stage import STUDENT, student_collection, teacher_collections
from rilbench.train.pipeline.prepare_data import pixel_limits, saved_responses
from rilbench.train.pipeline.run_folder import open_run

QUESTIONS = [Question(name, (b"image",), f"{name}?", "yes", "test") for name in ("q1", "q2")]


def run_of(tmp_path, *overrides):
    return open_run(tmp_path / "r", load_recipe("both", "nano", overrides=overrides), resume=False)


class Saved:
    """A stand-in for `ModelCollection` with made-up responses."""

    def __init__(self, plan):
        self.plan = plan

    def read(self, questions):
        return [
            SavedResponse(q.id, self.plan.model, i, 0, f"{self.plan.model} {i}", 3, "stop")
            for q in questions
            for i in range(self.plan.responses)
        ]


def test_only_the_first_max_responses_are_used(tmp_path):
    for use, expected in ((0, 4), (1, 1), (3, 3)):
        run = run_of(tmp_path / str(use), f"teachers.max_responses={use}")
        collections = [Saved(one.plan) for one in teacher_collections(run)]
        rows = saved_responses(run, collections, QUESTIONS)
        for question in QUESTIONS:
            responses = [row["response"] for row in rows[question.id]]
            assert responses == [f"{t} {i}" for t in ("72b", "78b") for i in range(expected)]


def test_each_method_collects_what_it_uses(tmp_path):
    from rilbench.checkpoint import inspect_checkpoint
    from rilbench.paths import locate

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
    }
    for i, (overrides, models) in enumerate(expected.items()):
        run = run_of(tmp_path / str(i), *overrides)
        collections = teacher_collections(run) + student_collection(run, student)
        assert [one.plan.model for one in collections] == models, overrides


def test_a_student_after_sft_is_not_collected_into_what_runs_share(tmp_path):
    from rilbench.checkpoint import inspect_checkpoint
    from rilbench.paths import locate

    student = inspect_checkpoint(locate("nano:restyled"))
    shared = f"collection.folder={tmp_path / 'shared'}"
    plain = run_of(tmp_path / "a", shared)
    after = run_of(tmp_path / "b", shared, "sft.steps=2")
    assert student_collection(plain, student)[0].folder == tmp_path / "shared"
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
