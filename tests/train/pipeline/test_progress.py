import io

from rich.console import Console

from rilbench.train.pipeline.progress import TrainingProgress

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


def test_a_run_of_days_fits_eighty_columns():
    """Numbers of the third day of the paper's run: none is cut, each has its head."""
    console = Console(file=io.StringIO(), width=80, force_terminal=True, record=True)
    progress = TrainingProgress(console, "ril: qwen2.5-vl-7b with both → runs/paper", 1000)
    progress.stage("ril", "running")
    for step in (260, 261):
        days = {"step": step, "seconds": 308.3, "tokens_student": 412.3, "missing_verdicts": 3}
        scored = {"dev_accuracy": 0.61 if step == 260 else None}
        progress.line("ril", {**STEP, **days, **scored})
    progress.started -= 3 * 86400 + 7200
    console.print(progress.render())
    text = console.export_text()
    lines = [line for line in text.splitlines() if "261/1000" in line]
    cells = "261/1000 0.50/0.90 0.25/0.75 0.80 3 0.123 412.3 308.3 2 d 15 h"
    assert " ".join(lines[0].split()) == cells
    heads = ("step", "answer", "similar", "D acc", "missing", "KL", "tokens", "s/step", "left")
    assert all(head in text for head in heads)
    assert "dev: 0.61 at step 260, best 0.61 at step 260" in text
    assert "3 d 2 h" in text
    assert "…" not in lines[0]
    assert max(map(len, text.splitlines())) <= 80


def test_a_note_of_the_trainer_is_shown_with_its_step():
    out = io.StringIO()
    with TrainingProgress(Console(file=out, width=60), "a run", 10) as progress:
        progress.line("note", {"step": 3, "note": "question q7 failed"})
        progress.line("note", {"step": 0, "note": "waiting for the start of runs/a"})
    assert "note: step 3: question q7 failed" in out.getvalue()
    assert "note: waiting for the start of runs/a" in out.getvalue()
