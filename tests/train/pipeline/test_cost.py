"""Costs against an independent measure: the kernel's CPU times of processes that burned some."""

import json
import multiprocessing
import os
import resource
import subprocess
import sys
import time

import pytest

from rilbench.processes import tree_cpu_seconds
from rilbench.train.pipeline.cost import CollectionCost, RunCost, metered, read_collection_cost

BURN = "import time; e = time.process_time() + {}\nwhile time.process_time() < e: pass"


def burn(seconds):
    subprocess.run([sys.executable, "-c", BURN.format(seconds)], check=True)


def ours():
    return tree_cpu_seconds(os.getpid())


def cost(folder):
    return json.loads((folder / "cost.json").read_text())


def test_the_meter_books_what_children_and_their_children_spend():
    booked = []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with metered(booked.append, ours):
        nested = (
            f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BURN.format(1)!r}])"
        )
        subprocess.run([sys.executable, "-c", nested], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = sum(getattr(after, k) - getattr(before, k) for k in ("ru_utime", "ru_stime"))
    assert spent > 1
    assert sum(booked) == pytest.approx(spent, abs=0.35)


def test_a_killed_tree_keeps_what_was_booked():
    booked = []
    with metered(booked.append, ours):
        child = subprocess.Popen([sys.executable, "-c", BURN.format(60)])
        while sum(booked) < 1:
            time.sleep(0.1)
        child.kill()
        child.wait()
        time.sleep(1.2)
    assert sum(booked) >= 1


def interrupted(folder):
    with metered(lambda seconds: RunCost(folder).book("ril", seconds), ours):
        burn(2)
        os._exit(9)  # as kill -9: nothing is tidied up


def test_a_killed_run_adds_up(tmp_path):
    for _ in range(2):
        process = multiprocessing.get_context("fork").Process(target=interrupted, args=(tmp_path,))
        process.start()
        process.join()
        assert process.exitcode == 9
    assert cost(tmp_path)["cpu_seconds"]["ril"] > 2, "both attempts, each but its last second"


def test_tokens_are_those_of_the_steps_in_the_metrics(tmp_path):
    line = {"sampled_tokens": 5, "teacher_tokens": 3, "trained_tokens": 8, "judge_calls": 4}
    (tmp_path / "sft").mkdir()
    (tmp_path / "sft" / "metrics.jsonl").write_text('{"step": 1, "trained_tokens": 100}\n')
    account = RunCost(tmp_path)
    account.book("sft", 1.5)
    for steps in (2, 3):  # counted again each time, not added
        lines = [json.dumps({"step": s, **line}) for s in range(steps)]
        (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        account.count_tokens()
        counted = cost(tmp_path)
        assert (counted["sampled_tokens"], counted["judge_calls"]) == (5 * steps, 4 * steps)
        assert counted["trained_tokens"] == 100 + 8 * steps
    assert counted["cpu_seconds"] == {"collect": 0.0, "sft": 1.5, "discriminator": 0.0, "ril": 0.0}


def test_every_run_that_uses_a_collection_counts_its_whole_cost(tmp_path):
    shared, private = tmp_path / "shared", tmp_path / "private"
    account = CollectionCost(shared)
    for seconds in (1.0, 2.0):
        account.book("72b", "a plan", seconds)
    account.count("72b", "a plan", 8, 90, served=True)
    CollectionCost(private).book("student", "another", 0.5)
    for run in (tmp_path / "one", tmp_path / "two"):
        RunCost(run).set_collected([(shared, "72b"), (private, "student")])
        assert cost(run)["cpu_seconds"]["collect"] == 3.5
    assert read_collection_cost(shared)["72b"]["tokens"] == 90
    account.book("72b", "other settings", 0.25)
    assert read_collection_cost(shared)["72b"]["cpu_seconds"] == 0.25, "another plan starts from 0"


def test_an_unknown_cost_is_null(tmp_path):
    CollectionCost(tmp_path).count("72b", "s", 8, 90, served=False)
    RunCost(tmp_path / "run").set_collected([(tmp_path, "72b")])
    assert cost(tmp_path / "run")["cpu_seconds"]["collect"] is None
    RunCost(tmp_path / "other").set_collected([(tmp_path / "nowhere", "72b")])
    assert cost(tmp_path / "other")["cpu_seconds"]["collect"] is None
