import io
import json
import re
from datetime import datetime, timedelta

import pytest
from rich.console import Console

from rilbench.train.activity import ActivityFile, read_activity
from rilbench.train.pipeline.progress import TrainingProgress
from rilbench.train.pipeline.progress_text import clock_time, seconds_left

STEP = {
    "step": 3,
    "seconds": 2.0,
    "answer_reward_student": 0.5,
    "answer_reward_teacher": 0.9,
    "similarity_reward_student": 0.25,
    "similarity_reward_teacher": 0.75,
    "discriminator_accuracy": 0.8,
    "kl": 0.123,
    "tokens_student": 12.3,
    "dev_accuracy": 0.61,
}
SHOWN = ("3/10", "0.50/0.90", "0.25/0.75", "0.80", "0.123", "12.3", "2.0", "0:14", "0.61")


def test_piped_output_has_a_line_for_each_step_with_every_metric():
    out = io.StringIO()
    with TrainingProgress(Console(file=out, width=60), "a run", 10) as progress:
        progress.stage("collect", "skipped")
        progress.stage("ril", "running")
        progress.line("ril", STEP)
    lines = out.getvalue().splitlines()
    assert any("collect: done before" in line for line in lines)
    step = next(line for line in lines if "step 3/10" in line)
    assert all(word in step for word in SHOWN)
    assert "\x1b" not in out.getvalue()


def test_the_live_display_shows_the_same(monkeypatch):
    console = Console(file=io.StringIO(), width=110, force_terminal=True, record=True)
    progress = TrainingProgress(console, "a [bold]run[/bold]", 10)
    progress.stage("collect", "running")
    progress.answers("72b", 5, 20)
    console.print(progress.render())
    assert "5/20" in console.export_text()
    progress.stage("collect", "done")
    progress.stage("ril", "running")
    progress.line("ril", STEP)
    console.print(progress.render())
    text = console.export_text()
    assert all(word in text for word in SHOWN)
    assert "a [bold]run[/bold]" in text, "names are shown as they are"


def test_a_baseline_has_no_discriminator_columns():
    out = io.StringIO()
    metrics = {k: v for k, v in STEP.items() if "teacher" not in k and "discriminator" not in k}
    with TrainingProgress(Console(file=out, width=60), "a run", 10) as progress:
        progress.line("ril", metrics)
    assert "0.50/-" in out.getvalue()
    assert "D acc" not in out.getvalue()


def test_a_warning_is_shown_once_when_it_first_appears():
    out = io.StringIO()
    with TrainingProgress(Console(file=out, width=200), "a run", 10) as progress:
        for step, names in ((3, []), (4, ["no-signal"]), (5, ["no-signal", "collapse"])):
            progress.line("ril", {**STEP, "step": step, "warnings": names})
    lines = [line for line in out.getvalue().splitlines() if "warning" in line]
    assert len(lines) == 2
    assert "warning at step 4: no-signal" in lines[0]
    assert "warning at step 5: collapse" in lines[1]


def test_the_live_display_keeps_warnings_visible():
    console = Console(file=io.StringIO(), width=110, force_terminal=True, record=True)
    progress = TrainingProgress(console, "a run", 10)
    progress.line("ril", {**STEP, "warnings": ["saturation"]})
    console.print(progress.render())
    assert "saturation" in console.export_text()


def test_sft_shows_its_loss():
    out = io.StringIO()
    with TrainingProgress(Console(file=out, width=80), "a run", 10) as progress:
        progress.stage("sft", "running")
        progress.line("sft", {"step": 2, "of": 4, "loss": 0.123})
    assert "sft 2/4  loss 0.123" in out.getvalue()


def test_a_run_of_days_fits_eighty_columns(tmp_path):
    """Numbers of the third day of the paper's run: none is cut, each has its head."""
    console = Console(file=io.StringIO(), width=80, force_terminal=True, record=True)
    title = "ril: qwen2.5-vl-7b with both → runs/paper"
    progress = TrainingProgress(console, title, 1000, tmp_path, ["collect", "ril", "export"])
    progress.stage("ril", "running")
    for step in (260, 261):
        days = {"step": step, "seconds": 308.3, "tokens_student": 412.3, "missing_verdicts": 3}
        scored = {"dev_accuracy": 0.61 if step == 260 else None}
        progress.line("ril", {**STEP, **days, **scored})
    progress.started -= 3 * 86400 + 7200
    console.print(progress.render())
    text = console.export_text()
    lines = [line for line in text.splitlines() if "261/1000" in line]
    assert " ".join(lines[0].split()) == "261/1000 0.50/0.90 0.25/0.75 0.80 3 0.123 412.3 308.3"
    heads = ("step", "answer", "similar", "D acc", "missing", "KL", "tokens", "s/step")
    assert all(head in text for head in heads)
    assert "0.61 at step 260, best 0.61 at step 260" in text
    assert "· collect  ▸ ril  · export  3 d 2 h" in text
    assert re.search(r"left +2 d 15 h, done at [A-Z][a-z]{2} \d\d:\d\d", text)
    assert "no step is saved yet" in text
    assert "…" not in lines[0]
    assert max(map(len, text.splitlines())) <= 80


def test_a_low_terminal_shows_fewer_steps():
    console = Console(file=io.StringIO(), width=80, height=24, force_terminal=True, record=True)
    progress = TrainingProgress(console, "a run", 100)
    for step in range(1, 13):
        progress.line("ril", {**STEP, "step": step})
    console.print(progress.render())
    text = console.export_text()
    assert ["9/100" in text, "10/100" in text, "12/100" in text] == [False, True, True]


def test_steps_that_are_done_again_replace_the_lost_ones(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps({**STEP, "step": 1}) + "\n")
    progress = TrainingProgress(Console(file=io.StringIO()), "a run", 10, tmp_path)
    progress.stage("ril", "running")
    for step in (2, 3, 2):
        progress.line("ril", {**STEP, "step": step})
    assert [step["step"] for step in progress.steps_done] == [1, 2]


def test_inside_a_step_it_says_what_goes_on(tmp_path):
    console = Console(file=io.StringIO(), width=80, force_terminal=True, record=True)
    progress = TrainingProgress(console, "a run", 10, tmp_path)
    progress.stage("ril", "running")
    console.print(progress.render())
    assert "starting verl" in console.export_text()
    file = ActivityFile(tmp_path)
    file.begin("gen", 4, of=32)
    file.reached(3)
    assert read_activity(tmp_path).done == 0, "written at most once a second"
    monotonic = file._written
    file._written = monotonic - 2
    file.reached(9)
    console.print(progress.render())
    assert "step 4: sampling, 9 of 32 responses, for 0:0" in console.export_text()


def test_every_ten_steps_a_sample_is_shown(tmp_path):
    rows = [
        {"source": "student", "response": "It is 3.", "answer_reward": 0.0, "reward": 1.0},
        {"source": "72b", "response": "long " * 100 + "Answer: 4", "answer_reward": 1.0},
    ]
    (tmp_path / "rollouts").mkdir()
    lines = [json.dumps({"question_id": "q1", "tokens": 3, "advantage": 0.5, **r}) for r in rows]
    (tmp_path / "rollouts" / "step_10.jsonl").write_text("\n".join(lines))
    out = io.StringIO()
    with TrainingProgress(Console(file=out, width=60), "a run", 10, tmp_path) as progress:
        for step in (9, 10):
            progress.line("ril", {**STEP, "step": step})
    text = out.getvalue()
    assert text.count("sample of step") == 1
    assert "student: It is 3.  → wrong, reward 1, advantage +0.50" in text
    assert " … " in text
    assert "Answer: 4  → right, advantage +0.50" in text


@pytest.mark.parametrize(
    ("hours", "said"), [(1, "14:20"), (20, "Tue 09:20"), (24 * 14, "Mon 14 Dec 13:20")]
)
def test_when_it_will_be_done(hours, said):
    now = datetime(2026, 11, 30, 13, 20)
    assert clock_time(now + timedelta(hours=hours), now) == said


def test_the_time_left_counts_scoring_and_saving_and_no_slow_start():
    steps = [{"step": 1, "seconds": 60.0}]
    steps += [{"step": step, "seconds": 10.0} for step in (2, 3)]
    steps.append({"step": 4, "seconds": 10.0, "verl": {"timing_s/testing": 8.0}})
    assert seconds_left([*steps, {"step": 5, "seconds": 10.0, "seconds_saving": 2.0}], 10) == 60.0


def test_a_note_of_the_trainer_is_shown_with_its_step():
    out = io.StringIO()
    with TrainingProgress(Console(file=out, width=60), "a run", 10) as progress:
        progress.line("note", {"step": 3, "note": "question q7 failed"})
        progress.line("note", {"step": 0, "note": "waiting for the start of runs/a"})
    assert "note: step 3: question q7 failed" in out.getvalue()
    assert "note: waiting for the start of runs/a" in out.getvalue()
