"""The training groups of the first and the last recorded step."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from report_place import HOSTILE, RECIPE, Place, png

from rilbench.data.question_files import Question, write_questions
from rilbench.data.rollout_groups import training_steps
from rilbench.data.row_files import write_column


def test_the_first_and_the_last_step_with_the_student_first(place: Place) -> None:
    found = training_steps(place.run, RECIPE)
    assert [step.number for step in found] == [1, 10]
    (group,) = found[1].groups
    assert [row.source for row in group.responses] == ["student", "72b"]
    assert (group.responses[0].response, group.responses[1].response) == ("at 10", HOSTILE)
    assert group.responses[0].discriminator == 0.75
    assert group.responses[1].answer is None
    assert (group.text, group.pictures) == ("", ())


def test_texts_and_pictures_come_from_the_run_or_from_the_recipes_data(place: Place) -> None:
    mine = place.folder / "mine.parquet"
    asked = Question("q1", (png((1, 1, 1)),), "From the recipe?", "gold", "set")
    write_questions(mine, [asked, Question("q2", (png((2, 2, 2)),), "Other?", "x", "set")])
    recipe = json.dumps({"data": {"train": str(mine)}})
    (group,) = training_steps(place.run, recipe)[0].groups
    assert (group.text, group.gold, group.data_set) == ("From the recipe?", "gold", "set")
    assert group.pictures == (png((1, 1, 1)),)
    row = {
        "data_source": "own",
        "prompt": [{"role": "user", "content": "<image>From the run?"}],
        "images": [{"row": 1, "min_pixels": 1}],
        "reward_model": {"style": "judge", "ground_truth": "B"},
        "extra_info": {"index": 0, "question_id": "q1"},
    }
    pictures = [png((2, 2, 2)), png((3, 3, 3))]
    write_column(place.run / "data" / "pictures.arrow", [pictures], "binary")
    pq.write_table(pa.Table.from_pylist([row]), place.run / "data" / "train.parquet")
    (group,) = training_steps(place.run, recipe)[0].groups
    assert (group.text, group.gold) == ("<image>From the run?", "B")
    assert group.pictures == (png((3, 3, 3)),)


@pytest.mark.parametrize("content", ["", "{", "[]\n", '{"question": 1}\n', "\x00\n"])
def test_a_record_that_cannot_be_read_is_no_step(place: Place, content: str) -> None:
    for path in (place.run / "rollouts").iterdir():
        path.write_text(content)
    assert training_steps(place.run, RECIPE) == []
    assert training_steps(place.folder, RECIPE) == []
