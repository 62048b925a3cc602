"""The command line around an evaluation, as a user meets it: real processes and what they print."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from command import refused, run

from rilbench.benchmark_names import PAPER_14
from rilbench.cli.eval import print_scores
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
    print_scores([whole, cut])
    said = capsys.readouterr()
    assert said.out == "m base none: MMStar 100.0\n" * 2
    assert said.err == "truncated responses: MMStar 3 of 7\n"


@pytest.mark.parametrize(
    ("finish", "judge", "why"),
    [
        ("stop", {}, "the judge's replies hold none; another judge may give one"),
        ("stop", {"trouble": "HTTP 500"}, "the judge: HTTP 500; run the same command again"),
        ("error: it is cut", {}, "no response: it is cut; run the same command again"),
        (
            "error: it is cut",
            {"trouble": "HTTP 500"},
            "the judge: HTTP 500, no response: it is cut; run the same command again",
        ),
    ],
)
def test_why_verdicts_are_missing(
    capsys: pytest.CaptureFixture[str], finish: str, judge: dict[str, str], why: str
) -> None:
    whole = evaluation("m", "It is B.", 1.0)
    sample = replace(whole.samples[0], score=None, finish_reason=finish)
    score = replace(whole.scores[0], missing=1)
    settings = {"judge": {"name": "j", **judge}}
    print_scores([replace(whole, samples=(sample,), scores=(score,), settings=settings)])
    assert capsys.readouterr().err.startswith(f"missing verdicts: MMStar 1 of 1; {why}")


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
