"""What the recorded responses say about why."""

import json
import shutil

import pytest

from rilbench.errors import UserError
from rilbench.lab.lab_paths import LabPaths
from rilbench.lab.mechanisms import MEASURES, measure_mechanisms, measures, read_mechanisms


def row(source, response, right, similarity, advantage):
    return {
        "source": source,
        "response": response,
        "answer_reward_before_noise": float(right),
        "similarity_reward": similarity,
        "advantage": advantage,
    }


ROWS = [
    row("student", "A", True, 1.0, 0.25),
    row("student", "B", False, 0.0, -0.75),
    row("student", "C", True, 0.0, 0.5),
    row("72b", "A", True, 1.0, 0.25),
    row("72b", "D", True, 1.0, 0.75),
    row("78b", "E", True, 1.0, 0.0),
    row("78b", "F", True, 0.0, 1.0),
]


def test_measures_by_hand():
    assert measures(ROWS) == {
        "shared": pytest.approx(2 / 7, abs=1e-4),  # the text A on each side
        "similarity_student": pytest.approx(1 / 3, abs=1e-4),
        "similarity_72b": 1.0,
        "similarity_78b": 0.5,
        "advantage_teacher": 0.5,
        "advantage_right": 0.375,
        "advantage_wrong": -0.75,
    }
    without_wrong = measures([each for each in ROWS if each["response"] != "B"])
    assert without_wrong["advantage_wrong"] is None


def test_runs_are_averaged_over_seeds_in_the_order_of_steps(tmp_path):
    paths = LabPaths(results=tmp_path, work=tmp_path / "work")
    with pytest.raises(UserError, match="first: rilbench lab run headline"):
        measure_mechanisms(paths)
    for seed, share in ((1, 0.0), (2, 1.0)):
        folder = paths.run_folder("headline", "paper", "ril", seed) / "rollouts"
        folder.mkdir(parents=True)
        for step in range(1, 12):
            rows = [row("student", "A", True, share, step), row("72b", "B", True, 1.0, step)]
            text = "".join(json.dumps(each) + "\n" for each in rows)
            (folder / f"step_{step}.jsonl").write_text(text)
    assert measure_mechanisms(paths) == paths.mechanisms
    found = read_mechanisms(paths.mechanisms)["paper"]["ril"]
    assert set(found) == set(MEASURES)
    assert found["similarity_student"] == [0.5] * 11
    assert found["advantage_teacher"] == list(range(1, 12))
    assert found["advantage_wrong"] == [None] * 11
    assert read_mechanisms(tmp_path / "none.json") == {}
    shutil.rmtree(paths.work / "runs" / "headline")
    folder = paths.run_folder("regimes", "format", "ril", 1) / "rollouts"
    folder.mkdir(parents=True)
    (folder / "step_1.jsonl").write_text("".join(json.dumps(each) + "\n" for each in ROWS))
    measure_mechanisms(paths)
    again = read_mechanisms(paths.mechanisms)
    assert set(again) == {"paper", "format"}, "what is not here keeps what was measured"
    assert again["paper"]["ril"] == found
