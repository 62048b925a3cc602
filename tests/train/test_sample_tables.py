"""Samples of a run as tables in trackers: real ones, whose files are read again."""

import json

import pytest

from rilbench.data.rollout_groups import GroupResponse, RolloutGroup, is_sampled
from rilbench.train.sample_tables import COLUMNS, KEY, SampleTables, as_markdown, sample_rows


def response(source, text, answer, reward, advantage):
    measured = {"similarity": 1.0, "discriminator": 0.2, "tokens": 3}
    return GroupResponse(
        source=source, response=text, answer=answer, reward=reward, advantage=advantage, **measured
    )


GROUP = RolloutGroup(
    question_id="q1",
    text="<image>How many |bars|?",
    gold="3",
    data_set="charts",
    pictures=(b"\x89PNG",),
    responses=(
        response("student", "There are\n4.", 0.0, 0.0, -0.5),
        response("72b", "3", 1.0, 2.0, 0.5),
        response("78b", "3", None, None, None),
    ),
)
ROWS = sample_rows(10, GROUP)


def test_a_row_has_question_response_verdict_and_reward():
    assert [dict(zip(COLUMNS, row, strict=True)) for row in ROWS][1] == {
        "step": 10,
        "question_id": "q1",
        "question": "How many |bars|?",
        "answer": "3",
        "source": "72b",
        "response": "3",
        "verdict": "right",
        "reward": 2.0,
        "advantage": 0.5,
    }
    assert [row[6] for row in ROWS] == ["wrong", "right", "no verdict"]
    assert [step for step in range(1, 31) if is_sampled(step)] == [1, 10, 20, 30]


def test_markdown_keeps_a_row_in_its_line():
    head, rule, first, *_ = as_markdown(ROWS).splitlines()
    assert head.count("|") == rule.count("|") == len(COLUMNS) + 1
    assert r"| How many \|bars\|? | 3 | student | There are 4. | wrong | 0.0 | -0.5 |" in first
    assert as_markdown(ROWS).splitlines()[-1].endswith("| no verdict |  |  |")


class Adapter:
    """verl's logger of a tracker."""

    def __init__(self, log=None, writer=None):
        self.log, self.writer = log, writer

    def is_new(self, step):
        return step != 2


def test_tensorboard_has_it_among_the_texts(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        tables = SampleTables({"tensorboard": Adapter(writer=writer)})
        tables.log(1, ROWS)
        tables.log(2, ROWS)  # is there from an earlier start
        tables.log(10, ROWS)
    events = EventAccumulator(str(tmp_path)).Reload().Tensors(f"{KEY}/text_summary")
    assert [event.step for event in events] == [1, 10]
    assert events[0].tensor_proto.string_val[0].decode() == as_markdown(ROWS)


@pytest.mark.integration  # starts W&B's service
def test_wandb_has_one_table_that_grows(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    with wandb.init(project="p", dir=str(tmp_path), id="run-1", resume="allow") as run:
        tables = SampleTables({"wandb": Adapter(log=run.log)})
        for step in (1, 10):
            tables.log(step, ROWS)
            run.log(data={"reward": 1.0}, step=step)
        files = sorted((tmp_path / "wandb").glob("offline-run-*/files/media/table/*.json"))
    tables = [json.loads(file.read_text()) for file in files]
    assert [table["columns"] for table in tables] == [list(COLUMNS)] * 2
    assert [row for table in tables for row in table["data"]] == [list(row) for row in ROWS] * 2


@pytest.mark.integration  # opens Trackio's data base
def test_trackio_has_a_table_for_each_step(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    trackio = pytest.importorskip("trackio")
    trackio.init(project="p", name="run-1", resume="allow", embed=False)
    tables = SampleTables({"trackio": Adapter(log=lambda data, step: trackio.log(data, step=step))})
    tables.log(1, ROWS)
    trackio.finish()
    from trackio.sqlite_storage import SQLiteStorage

    (logged,) = SQLiteStorage.get_logs("p", "run-1")
    assert [list(row.values()) for row in logged[KEY]["_value"]] == [list(row) for row in ROWS]
