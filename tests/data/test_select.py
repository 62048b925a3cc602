"""Sampling by score, and a real selection by the nano student."""

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from rilbench.checkpoint import inspect_checkpoint
from rilbench.cli import app
from rilbench.data.logprob_scores import Limits, Score, Scorer, batches, reference, score_all
from rilbench.data.question_files import Question, read_questions, write_questions
from rilbench.data.select import EASY, HARD, KEPT, NOT_SAMPLED, Rule, choose
from rilbench.errors import UserError
from rilbench.judge.rules import is_right
from rilbench.paths import locate

LIMITS = Limits(160, 48)


def scores(values):
    return [Score(str(i), f"q{i}", "s", 5, 2, value) for i, value in enumerate(values)]


def fates(values, **rule):
    return choose(scores(values), Rule(**rule))


def test_bounds_drop_the_ends_and_the_rest_is_counts():
    found = fates([-i / 10 for i in range(10)], keep=4, easiest=0.2, hardest=0.1)
    assert [found["q0"], found["q1"], found["q9"]] == [EASY, EASY, HARD]
    assert sorted(found.values()).count(KEPT) == 4
    assert sorted(found.values()).count(NOT_SAMPLED) == 3


def test_what_surprises_more_is_counts_more_often():
    values = [-0.1] * 50 + [-1.0] * 50
    counts = [0, 0]
    for seed in range(40):
        found = fates(values, keep=20, easiest=0, hardest=0, seed=seed)
        counts[0] += sum(found[f"q{i}"] == KEPT for i in range(50))
        counts[1] += sum(found[f"q{i}"] == KEPT for i in range(50, 100))
    assert sum(counts) == 800
    # Of 20 out of 50 and 50 with weights 1 to 10, about 1 to 8: the heavy ones run short.
    assert 6 < counts[1] / counts[0] < 11


@given(
    st.lists(st.none() | st.floats(-20, 0), max_size=40),
    st.integers(1, 50),
    st.floats(0, 0.49),
    st.floats(0, 0.49),
    st.integers(0, 5),
    st.randoms(use_true_random=False),
)
def test_a_choice_is_the_same_in_any_order(values, keep, easiest, hardest, seed, random):
    given_ = [
        dataclasses.replace(s, problem="refused") if s.logprob is None else s
        for s in scores(values)
    ]
    rule = Rule(keep, easiest, hardest, seed)
    found = choose(given_, rule)
    shuffled = list(given_)
    random.shuffle(shuffled)
    assert choose(shuffled, rule) == found
    assert len(found) == len(values)
    assert "" not in found.values()
    assert list(found.values()).count(KEPT) <= keep


def test_wrong_rules_are_refused():
    for rule in (
        {"keep": 0},
        {"easiest": 1.0},
        {"hardest": -0.1},
        {"easiest": 0.6, "hardest": 0.4},
    ):
        with pytest.raises(UserError, match="--"):
            Rule(**rule)


def test_the_reference_is_the_first_alternative():
    assert reference("A<OR>yes") == "A"
    assert reference("0<AND>3<AND>3") == "0, 3, 3"
    assert reference("<OR>x") == "x"


# ---- with the student that ships


@pytest.fixture(scope="module")
def scorer():
    return Scorer(inspect_checkpoint(locate("nano:restyled")), LIMITS)


@pytest.fixture(scope="module")
def prompts():
    return read_questions(locate("nano:prompts.parquet"))


def odd(shown):
    """Questions that cannot be trained on, each in its own way."""
    wide = io.BytesIO()
    Image.new("RGB", (8000, 10)).save(wide, "PNG")
    huge = io.BytesIO()
    Image.linear_gradient("L").resize((1600, 1600)).save(huge, "PNG")
    return [
        dataclasses.replace(shown, id="long", question="Which digit is it? " * 60),
        dataclasses.replace(shown, id="answer", answer="seven and " * 60),
        dataclasses.replace(shown, id="large", images=(huge.getvalue(),) * 8),
        dataclasses.replace(shown, id="wide", images=(wide.getvalue(),)),
        dataclasses.replace(shown, id="broken", images=(b"no picture",)),
        dataclasses.replace(shown, id="mark", question="<|image_pad|>?"),
    ]


def test_scores_are_the_model_s_own(scorer, prompts):
    """A batch's scores against the sum over each token of a question alone."""
    import torch

    found = scorer.score(prompts[:14])
    for question, score in zip(prompts[:14], found, strict=True):
        inputs = scorer._process([scorer._item(question)])
        with torch.inference_mode():
            logits = scorer.model(**inputs).logits[0].log_softmax(-1)
        ids = inputs["input_ids"][0].tolist()
        answer = ids[score.prompt_tokens :]
        assert scorer.processor.tokenizer.decode(answer) == reference(question.answer)
        total = sum(
            logits[score.prompt_tokens - 1 + i, token].item() for i, token in enumerate(answer)
        )
        assert score.logprob == pytest.approx(total / len(answer), abs=1e-4)
        assert score.answer_tokens == len(answer)


def test_what_cannot_be_trained_on_has_its_reason(scorer, prompts):
    found = scorer.score([prompts[0], *odd(prompts[0]), prompts[1]])
    assert [s.problem for s in found] == [
        *("", "overlong prompt", "overlong answer", "overlong prompt"),
        *("refused", "refused", "refused", ""),
    ]
    assert found[3].prompt_tokens > 160  # its images alone exceed the limit
    assert "aspect ratio" in found[4].reason
    assert "formats JPEG" in found[5].reason
    assert found[0].logprob == pytest.approx(scorer.score([prompts[0]])[0].logprob, abs=1e-4)


def test_questions_of_text_alone_have_the_score_that_they_have_among_others(scorer, prompts):
    text = [dataclasses.replace(q, id=f"t{q.id}", images=()) for q in prompts[:3]]
    alone, among = scorer.score(text), scorer.score([*text, prompts[0]])
    assert [s.problem for s in alone] == ["", "", ""]
    assert [s.logprob for s in alone] == pytest.approx([s.logprob for s in among[:3]], abs=1e-4)


def test_a_score_that_is_no_number_is_refused(scorer, prompts):
    weight = scorer.model.lm_head.weight.data
    whole = weight.clone()
    weight.fill_(float("nan"))
    (score,) = scorer.score(prompts[:1])
    weight.copy_(whole)
    assert (score.problem, score.logprob) == ("refused", None)
    assert "not finite" in score.reason
    assert scorer.score(prompts[:1])[0].logprob is not None


def test_easy_questions_are_dropped(scorer, prompts, tmp_path):
    """What is dropped as too easy is what the student answers right before any training."""
    found = score_all(scorer, prompts, tmp_path / "s.jsonl", 16, lambda _: None)
    decided = choose(found.values(), Rule(keep=100, easiest=0.3, hardest=0.1))
    right = {question.id: greedy(scorer, question) for question in prompts[:140]}
    shares = {
        fate: [right[q.id] for q in prompts[:140] if decided[q.id] == fate]
        for fate in (EASY, KEPT, HARD)
    }
    easy, kept, hard = (sum(each) / len(each) for each in shares.values())
    assert easy > kept + 0.15, (easy, kept, hard)
    assert easy > hard + 0.15, (easy, kept, hard)


def greedy(scorer, question):
    """Whether the student's own answer is right."""
    import torch

    item = scorer._item(dataclasses.replace(question, answer="x"))
    inputs = scorer._process([dataclasses.replace(item, text=item.text.removesuffix("x"))])
    with torch.inference_mode():
        found = scorer.model.generate(**inputs, do_sample=False, max_new_tokens=48)
    words = scorer.processor.decode(
        found[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )
    return is_right(question.answer, words)


def test_batches_are_alike_in_length_and_hold_everything_once(prompts):
    found = list(batches(prompts, 8))
    assert sorted(q.id for batch in found for q in batch) == sorted(q.id for q in prompts)
    assert {len(batch) for batch in found} == {8}


@pytest.mark.integration
def test_a_kill_in_the_middle_loses_nothing(prompts, tmp_path):
    """The real command, killed while it scores, then again: the same as one that was not."""
    write_questions(tmp_path / "q.parquet", [*prompts[:96], *odd(prompts[0])])
    arguments = ["data", "select", str(tmp_path / "q.parquet"), "--student", "nano"]
    arguments += ["--batch", "4", "--keep", "30"]

    code = "import sys; from rilbench.cli import main; sys.argv[0] = 'rilbench'; main()"
    start = [sys.executable, "-c", code, *arguments, "--out", str(tmp_path / "killed.parquet")]
    journal = tmp_path / "killed.scores.jsonl"
    process = subprocess.Popen(start, env={**os.environ, "OMP_NUM_THREADS": "1"})
    until = time.monotonic() + 300
    while not journal.exists() or journal.read_bytes().count(b"\n") < 20:
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed.parquet").exists()
    before = journal.read_bytes()
    assert before.count(b"\n") < 100
    journal.write_bytes(before[:-7])  # As if the kill had come within a line.
    for out in ("killed", "whole"):
        target = str(tmp_path / f"{out}.parquet")
        done = CliRunner().invoke(app, [*arguments, "--out", target])
        assert done.exit_code == 0, done.exception
    assert journal.read_bytes().startswith(before[: before[:-7].rfind(b"\n")])
    lines = journal.read_text().splitlines()
    assert len(lines) == 1 + 102
    assert sorted(lines) == sorted((tmp_path / "whole.scores.jsonl").read_text().splitlines())
    killed, whole = (read_questions(tmp_path / f"{o}.parquet") for o in ("killed", "whole"))
    assert killed == whole
    assert len(whole) == 30
    told = json.loads((tmp_path / "whole.selection.json").read_text())
    fates = told["fates"]
    assert sum(fates.values()) == 102
    assert (fates["kept"], fates["overlong answer"], fates["overlong prompt"]) == (30, 1, 2)
    assert fates["refused"] == 3
    assert set(told["refused"]) == {"wide", "broken", "mark"}


def test_a_changed_question_is_scored_again_and_others_are_not(
    scorer, prompts, tmp_path, monkeypatch
):
    journal = tmp_path / "s.jsonl"
    few = prompts[:8]
    first = score_all(scorer, few, journal, 4, lambda _: None)
    size = len(journal.read_text().splitlines())
    changed = [dataclasses.replace(few[0], answer="B"), *few[1:]]
    second = score_all(scorer, changed, journal, 4, lambda _: None)
    assert len(journal.read_text().splitlines()) == size + 1
    assert {k: v for k, v in second.items() if k != few[0].id} == {
        k: v for k, v in first.items() if k != few[0].id
    }


def test_scores_of_others_are_refused(scorer, prompts, tmp_path):
    journal = tmp_path / "s.jsonl"
    journal.write_text('{"student": "other"}\n')
    with pytest.raises(UserError, match="another student"):
        score_all(scorer, prompts[:2], journal, 4, lambda _: None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.parquet"], "none.parquet does not exist"),
        (["q.parquet", "--keep", "0"], "at least 1"),
        (["q.parquet", "--batch", "0"], "at least 1"),
        (["q.parquet", "--student", "qwen2.5-vl-3b"], "needs a GPU"),
        (["q.parquet", "--set", "data.max_response_tokens=0"], "at least 1"),
    ],
)
def test_wrong_arguments(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    write_questions(tmp_path / "q.parquet", [Question("1", (b"x",), "?", "a", "")])
    student = [] if "--student" in arguments else ["--student", "nano"]
    done = CliRunner().invoke(app, ["data", "select", *arguments, *student, "--out", "o.parquet"])
    assert isinstance(done.exception, UserError)
    assert words in str(done.exception)


def test_nothing_left(tmp_path):
    write_questions(tmp_path / "q.parquet", [Question("1", (b"x",), "?", "a", "")])
    arguments = ["data", "select", str(tmp_path / "q.parquet"), "--student", "nano"]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "o.parquet")])
    assert "no question of" in str(done.exception)
    assert not (tmp_path / "o.parquet").exists()
