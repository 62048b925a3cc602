"""The command line around an evaluation, as a user meets it: real processes and what they print."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from command import refused, run

from rilbench.benchmark_names import PAPER_14
from rilbench.cli.score_report import print_scores, refuse_unscored
from rilbench.errors import UserError
from rilbench.ledger import Evaluation, Ledger, Sample, Score, utc_now


def lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stderr
    return [line.rstrip() for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("kit", "row"),
    [
        ("vlmevalkit", "MMStar.*MMStar.*1,500.*Overall, 0-1.*may read.*MMStar.tsv"),
        ("lmms-eval", "MMStar.*mmstar.*1,500.*average, 0-1.*no.*Lin-Chen/MMStar"),
    ],
)
def test_the_list_of_benchmarks(tmp_path: Path, kit: str, row: str) -> None:
    found = lines(
        run("eval", "--list", "--suite", "paper", "--kit", kit, cwd=tmp_path, COLUMNS="160")
    )
    assert all(any(line.startswith(column) for line in found) for column in PAPER_14)
    assert any(re.match(row, line) for line in found), found


def test_a_narrow_window_cuts_no_number(tmp_path: Path) -> None:
    found = lines(run("eval", "--list", "--suite", "paper", cwd=tmp_path, COLUMNS="40"))
    assert re.match(r"SEED +SEEDBench_IMG +images +14,233 +Overall, 0-1 ", found[13])


@pytest.mark.integration
def test_a_dry_run_says_what_would_be_asked_and_what_it_costs(tmp_path: Path) -> None:
    options = ["--benchmarks", "MMStar,MM-Vet", "--judge", "judge@http://127.0.0.1:9/v1"]
    done = run("eval", "--dry-run", *options, "--price", "1,10", cwd=tmp_path)
    found = lines(done)
    assert found[0].split()[-4:] == ["judge", "calls", "judge", "tokens"]
    assert found[1].split()[:4] == ["MM-Vet", "100", "100", "100"]
    assert found[2].split()[:3] == ["MMStar", "100", "100"]
    assert any(line.startswith("all ") for line in found)
    assert found[-1].startswith("disk: about ")
    # 100 calls of 800 + 200 tokens in and 40 out; reading 100 more options costs 500 and 40.
    assert "judge, about: 0.14 to 0.23" in done.stdout
    assert not list(tmp_path.glob("*.db"))
    refused(run("eval", "--model", "nano:restyled", "--price", "1,10", cwd=tmp_path), "--dry-run")
    refused(run("eval", "--dry-run", "--price", "1,10", cwd=tmp_path), "give --judge MODEL@URL")


def test_the_states_of_data_files(tmp_path: Path) -> None:
    done = run("data", "check", "--suite", "nano", cwd=tmp_path)
    assert sum("stand-in" in line for line in lines(done)) == 15
    (tmp_path / "MMStar.tsv").write_text("index\tquestion\n0\tWhich?\n")
    done = run("data", "check", "--data", ".", cwd=tmp_path)
    refused(done, "14 are missing")
    assert "MMStar.tsv" in done.stdout
    assert "unverified" in done.stdout
    assert "expected e1ecd2140806c1b1bbf54b43372efb9e" in done.stdout
    lines(run("data", "check", "--data", ".", "--benchmarks", "MMStar", cwd=tmp_path))
    (tmp_path / "MMStar.tsv").write_text("<html>404 Not Found</html>")
    done = run("data", "check", "--data", ".", "--benchmarks", "MMStar", cwd=tmp_path)
    refused(done, "no whole data: MMStar.tsv; delete and download again")
    assert "an HTML page" in done.stdout
    done = run("data", "check", "--kit", "lmms-eval", "--data", ".", cwd=tmp_path)
    refused(done, "15 are missing")
    assert "Lin-Chen/MMStar" in done.stdout


def test_the_kits_and_where_they_are(tmp_path: Path) -> None:
    (folder,) = lines(run("kits", "path", cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path)))
    assert folder == str(tmp_path / "rilbench" / "kits")
    found = lines(run("kits", "list", cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path)))
    assert found[1].split()[:2] == ["vlmevalkit", "ms-vlmeval==0.0.20"]
    assert found[2].split()[:2] == ["lmms-eval", "lmms-eval==0.7.3"]
    assert found[1].endswith("made on first use")
    for other in ("another", "train"):  # Of the second there is a list of packages, too.
        refused(
            run("kits", "install", other, cwd=tmp_path), other, "choose from vlmevalkit, lmms-eval"
        )
    (tmp_path / "file").touch()
    options = ["--model", "nano:restyled", "--benchmarks", "MMStar", "--work", "file"]
    refused(run("eval", *options, cwd=tmp_path), "file", "give another place")


def test_why_two_scores_differ(tmp_path: Path) -> None:
    with Ledger(tmp_path / "rilbench.db") as ledger:
        for number, text in enumerate(("A", "It is B.")):
            ledger.record(evaluation(f"model-{number}", text, score=float(number)))
    done = run("compare", "1", "2", "--questions", cwd=tmp_path)
    assert "other response" in "\n".join(lines(done))
    assert "It is B." in done.stdout
    refused(run("compare", "1", "3", cwd=tmp_path), "no evaluation '3'")


def test_truncated_responses_are_printed_after_the_scores(
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = evaluation("m", "It is B.", 1.0)
    cut = replace(whole, scores=(replace(whole.scores[0], questions=7, truncated=3),))
    print_scores(whole)
    print_scores(cut)
    said = capsys.readouterr()
    assert said.out == "m base none: MMStar 100.0\n" * 2
    assert said.err == "truncated responses: MMStar 3 of 7\n"


HOLD_NONE = (
    "hold none (kept in work/judge/j.jsonl); another judge may give one, and --fresh-verdicts"
)


@pytest.mark.parametrize(
    ("judge", "why"),
    [
        ({}, "the judge's replies hold none; another judge may give one"),
        ({"replies": "work/judge/j.jsonl"}, f"the judge's replies {HOLD_NONE} asks this one again"),
        (
            {"troubles": {"HTTP 429: slow down": 3}},
            "the judge: HTTP 429: slow down (3); run the same command again to ask what got no",
        ),
        (
            {"troubles": {"HTTP 500": 1, "it is cut": 1}, "replies": "work/judge/j.jsonl"},
            "the judge: HTTP 500 (1); the judge: it is cut (1); run the same command again to ask "
            f"what got no reply; the judge's other replies {HOLD_NONE}",
        ),
    ],
)
def test_why_verdicts_are_missing(
    capsys: pytest.CaptureFixture[str], judge: dict[str, object], why: str
) -> None:
    print_scores(with_counts(60.0, 3, judge={"name": "j", **judge}))
    assert f"\nmissing verdicts: MMStar 3 of 100; {why}" in "\n" + capsys.readouterr().err


def test_what_is_no_answer_is_counted_by_cause_beside_the_score(
    capsys: pytest.CaptureFixture[str],
) -> None:
    causes = {"only reasoning": 90, "no response": 2, "not asked": 1}
    reading = {"no_answer": causes, "if_wrong": 4.0, "reasoning": 7, "silent": 1}
    print_scores(with_counts(57.14, 93, reading, finish="error: 400: too long"))
    said = capsys.readouterr()
    assert said.out == "m base none: MMStar 57.1 (7 of 100)\n"
    assert said.err.splitlines() == [
        "reasoning dropped before scoring: MMStar 7 of 100",
        "empty answers, counted as wrong: MMStar 1 of 100",
        "no answer: MMStar 93 of 100 (only reasoning 90, no response 2, not asked 1); no verdict, "
        "no judge was asked; the first without a response: 400: too long; raise --max-tokens, or "
        "turn the model's thinking off; run the same command again to ask those without a "
        "response; rilbench data check looks at the files of those that cannot be asked",
        "with all of these as wrong answers: MMStar 4.0",
        "incomplete: MMStar: less than 95% of the questions have a verdict; left out of means",
    ]


def test_unread_choices_are_told_with_the_second_reading_and_the_remedy(
    capsys: pytest.CaptureFixture[str],
) -> None:
    second = {"second": 89.6, "second_unread": 3, "second_name": "plain forms 1"}
    print_scores(with_counts(43.8, 0, {"unread": 26, **second}))
    said = capsys.readouterr()
    assert said.out == "m base none: MMStar 43.8\n"
    assert said.err == (
        "choices that the kit's rules could not read: MMStar 26 of 100; they count as wrong, a "
        "judge reads them: --judge MODEL@URL; by the second reading, plain forms 1: MMStar 89.6 (3 "
        "unread)\n"
    )


def test_an_evaluation_without_a_score_is_a_failure() -> None:
    whole = evaluation("m", "It is B.", 1.0)
    refuse_unscored([whole])
    with pytest.raises(UserError, match="nothing of m was scored"):
        refuse_unscored([whole, replace(whole, scores=(replace(whole.scores[0], value=None),))])


def test_kept_verdicts_are_listed(tmp_path: Path) -> None:
    folder = tmp_path / "w" / "judge"
    folder.mkdir(parents=True)
    line = '{"key": "k", "model": "qwen-2507", "reply": "1", "revision": "org/q"}\n'
    (folder / "q.jsonl").write_text(line * 2 + line.replace('"k"', '"l"'))
    found = lines(run("eval", "--list-verdicts", "--work", "w", cwd=tmp_path))
    assert found[1].split() == ["qwen-2507", "org/q", "2", "w/judge/q.jsonl"]
    assert lines(run("eval", "--list-verdicts", "--work", "x", cwd=tmp_path))[1].split() == [
        "none",
        "x/judge",
    ]


def with_counts(
    value: float,
    missing: int,
    reading: dict[str, object] | None = None,
    judge: dict[str, object] | None = None,
    finish: str = "stop",
) -> Evaluation:
    """A hundred questions of MMStar, one of which has a sample."""
    whole = evaluation("m", "It is B.", 1.0)
    score = replace(whole.scores[0], value=value, questions=100, missing=missing)
    sample = replace(whole.samples[0], score=None, finish_reason=finish)
    settings = {"judge": judge or {"name": "j"}, "reading": {"MMStar": reading or {}}}
    return replace(whole, samples=(sample,), scores=(score,), settings=settings)


def evaluation(name: str, response: str, score: float) -> Evaluation:
    """One question of MMStar."""
    sample = Sample(
        benchmark="MMStar", question_id="0", prompt_hash="p", response=response, score=score
    )
    whole = Score(
        benchmark="MMStar",
        value=100 * score,
        kit="vlmevalkit",
        kit_version="1",
        dataset="MMStar",
        metric="Overall",
        questions=1,
        answered=1,
        missing=0,
        data_sha256="0" * 64,
    )
    return Evaluation(
        path=name,
        fingerprint=name,
        student=name,
        method="base",
        teacher="none",
        suite="nano",
        created=utc_now(),
        scores=(whole,),
        samples=(sample,),
    )
