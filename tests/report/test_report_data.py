"""What a report gathers: rows with intervals and differences, charts, facts, sources."""

import json
from pathlib import Path

import altair as alt
import pytest
from report_place import HOSTILE, Place, evaluation, outcomes, run, sample, score

from rilbench.benchmark_names import PAPER_14
from rilbench.ledger import Ledger
from rilbench.report.charts import bar_charts, curve_charts, curve_legend
from rilbench.report.escaping import NOTHING
from rilbench.report.page import render
from rilbench.report.report_data import ReportData, gather
from rilbench.report.scores import MEAN, score_rows_of_paper


def report(place: Place, *names: str) -> ReportData:
    with Ledger.open_read(place.db) as ledger:
        return gather(ledger, names)


def test_rows_have_roles_differences_intervals_and_heat(place: Place) -> None:
    found = report(place, "first")
    assert [(row.role, row.label) for row in found.rows] == [
        *(("before", "nano"), ("after", "nano ril both")),
        *(("teacher", "nano-72b"), ("teacher", "nano-78b")),
    ]
    assert len({row.colour for row in found.rows}) == 4
    before, after = (row.cells["MMStar"] for row in found.rows[:2])
    assert before.value == 50.0  # One right, one wrong, one without a verdict.
    assert after.difference is None, "two verdicts of three are no score to compare with"
    assert after.low is not None
    assert after.high is not None
    assert after.low < 200 / 3 < after.high
    assert (before.heat, found.rows[2].cells["MMStar"].heat) == (0.0, 1.0)
    assert before.note == (
        "1 of 3 without a verdict; incomplete: it counts in no mean and no difference"
    )
    assert found.rows[0].remarks == [f"{before.note}: MMStar, BLINK"]
    assert found.rows[1].cells["AI2D"].value is None
    assert found.rows[1].cells[MEAN].value is None


def test_an_interval_that_is_not_the_scores_is_left_out(place: Place) -> None:
    samples = outcomes({"1": 0.0})
    scores = (score("MMStar", samples, value=12.0), score("BLINK", samples))
    place.add(evaluation(samples, scores=scores, fingerprint="else11"))
    (row,) = report(place, "6").rows
    assert row.cells["MMStar"].low is None
    assert row.cells["BLINK"].low is not None


def test_the_mean_has_an_interval_when_every_benchmark_has_one(place: Place) -> None:
    samples = [sample(name, str(i), score=float(i % 2)) for name in PAPER_14 for i in range(10)]
    scores = tuple(score(name, samples) for name in PAPER_14)
    place.add(evaluation(samples, scores=scores, fingerprint="whole1"))
    cell = report(place, "6").rows[0].cells[MEAN]
    assert cell.value == 50.0
    assert cell.low is not None
    assert 40 < cell.low < 50


def test_scores_of_another_kind_are_not_compared_and_say_so(place: Place) -> None:
    samples = outcomes({})
    scores = tuple(score(name, samples, data_sha256="9") for name in ("MMStar", "BLINK"))
    trained = {"method": "ril", "teacher": "both", "start_fingerprint": "start1"}
    place.add(evaluation(samples, scores=scores, fingerprint="odd111", run="odd", **trained))
    row = next(row for row in report(place, "6").rows if row.role == "after")
    assert row.cells["MMStar"].difference is None
    assert row.cells["MMStar"].note.startswith("not compared with its start")


def test_a_benchmark_that_the_paper_does_not_have_is_shown(place: Place) -> None:
    names = ("OwnBench", "MMStar")
    samples = [sample(name, str(i), score=float(i % 2)) for name in names for i in range(10)]
    scores = tuple(score(name, samples) for name in names)
    place.add(evaluation(samples, scores=scores, fingerprint="own111"))
    found = report(place, "6", "first")
    assert found.columns == [*PAPER_14, "OwnBench", MEAN]
    with_it = next(row for row in found.rows if "OwnBench" in row.cells)
    assert with_it.cells["OwnBench"].value == 50.0
    assert all(row.cell("OwnBench").value is None for row in found.paper)
    assert [chart.name for chart in found.bars[0].charts] == ["MMStar", "BLINK", "OwnBench"]
    assert found.sources[0].data[1][0] == "OwnBench"
    assert {question.key[0] for question in found.sets[0].questions} >= set(names)
    page = render(found)
    assert '<th scope="col" class="">OwnBench</th>' in page


def test_two_models_of_one_label_are_told_apart(place: Place) -> None:
    found = report(place, "1", "2")
    assert len(found.rows) == 4
    place.add(evaluation(outcomes({}), fingerprint="twin11"))
    labels = [row.label for row in report(place, "1", "6").rows]
    assert labels == ["nano (evaluation 1)", "nano (evaluation 6)"]


def test_the_papers_rows_and_the_student_that_is_nearest(place: Place) -> None:
    with Ledger.open_read(place.db) as ledger:
        paper = score_rows_of_paper(ledger)
        changes = score_rows_of_paper(ledger, levels=False)
    assert len(paper) == 30
    assert len(changes) == 25, "the five untrained ones changed nothing"
    assert {cell.value for row in changes for cell in row.cells.values()} == {None}
    assert changes[0].cells["AI2D"].difference == pytest.approx(0.2)
    assert paper[1].cells["AI2D"].difference == pytest.approx(0.2)
    assert report(place, "first").near == "Qwen2.5-VL-7B"
    place.add(evaluation(outcomes({}), student="internvl3-2b", fingerprint="intern", suite="paper"))
    found = report(place, "6")
    assert found.near == "InternVL3-2B"
    assert found.published


def test_one_chart_for_each_benchmark_and_each_figure(place: Place) -> None:
    found = report(place, "first")
    assert [chart.name for chart in found.bars[0].charts] == ["MMStar", "BLINK"]
    bar = found.bars[0].charts[0]
    assert "nano 50.0" in bar.summary
    assert [chart.name for chart in found.curves] == [
        *("Answer reward", "Discriminator accuracy", "Learning rate")
    ]
    assert found.curves[0].note == "last student 0.40, teachers 0.90"
    for chart in (*found.curves, *found.bars[0].charts):
        drawn = {key: part for key, part in chart.spec.items() if key != "config"}
        alt.Chart.from_dict(drawn, validate=True)  # no page checks its charts again
    spec = json.dumps(found.curves[0].spec)
    assert '"step": 2, "value": 0.2' in spec
    assert '"step": 3, "value": 0.8, "key": "s1"' in spec
    assert '"step": 3, "value": null' not in spec
    (warning,) = found.recipes[0].warnings
    assert warning.startswith("collapse in 1 step (3); the student answers far worse")
    assert "answer reward student 0.15 at the start, 0.15 at step 3" in warning


def _seeds(place: Place, count: int) -> list[str]:
    """Evaluations of one recipe's seeds: right in 0, 1, 2 … of ten questions of each benchmark."""
    recipe = {"method": "ril", "teacher": "both", "family": "f", "start_fingerprint": "start1"}
    made = []
    for seed in range(count):
        samples = [sample(n, str(i), score=float(i <= seed)) for n in PAPER_14 for i in range(10)]
        scores = tuple(score(name, samples) for name in PAPER_14)
        labels = {"fingerprint": f"seed{seed}", "seed": seed, "run": f"run-{seed}"}
        made.append(evaluation(samples, scores=scores, **labels, **recipe))
    return [str(number) for number in place.add(*made)]


def test_the_seeds_of_a_recipe_are_one_row_one_bar_and_columns_of_their_own(place: Place) -> None:
    found = report(place, "5", *_seeds(place, 3))
    row = next(row for row in found.rows if row.role == "after")
    assert row.label == "nano ril both, 3 seeds"
    assert len(row.evaluations) == 3
    cell = row.cells[MEAN]
    assert cell.value == pytest.approx(20.0)
    # Of 10, 20 and 30: Student's t of another seed is 4.30 · 10 · √(1 + 1/3) on each side.
    assert (cell.low, cell.high) == (0.0, pytest.approx(20 + 49.7, abs=0.1))
    assert [chart.name for chart in found.bars[0].charts[:2]] == ["Mean", "AI2D"]
    labels = [column.label for column in found.sets[0].columns]
    assert labels[-3:] == [f"nano ril both, seed {seed}" for seed in range(3)]


def test_no_untrained_model_is_after_and_none_is_dropped_from_the_summary(place: Place) -> None:
    found = report(place, "1", "2", "5")
    roles = {row.label: row.role for row in found.rows}
    assert roles == {
        **{"nano": "before", "nano ril both (first)": "after", "other": "base"},
        **{"nano-72b": "teacher", "nano-78b": "teacher"},
    }
    assert [fact.label for fact in found.facts] == ["nano", "nano ril both (first)", "other"]
    assert {row.role for row in report(place, "5", "1").rows} == {"base"}


def test_stand_ins_are_compared_with_the_paper_by_their_changes_alone(place: Place) -> None:
    samples = [sample(name, str(i), score=float(i < 2)) for name in PAPER_14 for i in range(10)]
    place.add(evaluation(samples, scores=tuple(score(name, samples) for name in PAPER_14)))
    found = report(place, *_seeds(place, 1))
    charts = {chart.name: chart.summary for chart in found.bars[0].charts}
    assert charts["Change of the mean"].startswith("Change of the mean: nano ril both -10.0; paper")
    assert [name for name, words in charts.items() if "paper" in words] == ["Change of the mean"]
    assert all(cell.value is None for row in found.paper for cell in row.cells.values())


def test_a_long_label_is_whole_in_its_chart(place: Place) -> None:
    name = "Qwen2.5-VL-7B-of-a-very-long-name " * 3
    place.add(evaluation(outcomes({}), student=name, fingerprint="long11"))
    (bars,) = report(place, "6").bars
    ((shown,),) = bars.charts[0].spec["datasets"].values()
    assert " ".join(shown["shown"].split("\n")) == shown["label"] == name.strip()


def test_several_runs_share_a_chart_and_hostile_names_stay_out_of_expressions() -> None:
    runs = [run(Path("/r/a")), run(Path("/r/b"), name=f"b.c[0]'\"{HOSTILE}")]
    charts = curve_charts(runs)
    assert charts[0].note.count("student") == 2
    assert len(curve_legend(runs)) == 3
    layers = charts[0].spec["layer"]
    told = layers[-1]["encoding"]["tooltip"]
    assert [each["field"] for each in told] == ["step", "s0", "s1", "s2", "s3"]
    assert "hacked" in told[3]["title"]
    fields = json.dumps([{**layer, "encoding": None} for layer in layers])
    assert "hacked" not in fields


def test_a_run_without_a_curve_or_a_score_has_no_chart(place: Place) -> None:
    assert curve_charts([run(Path("/r"), curves={"kl": [None, float("nan")]})]) == []
    assert bar_charts([], report(place, "5").paper) == []


def test_facts_and_sources(place: Place) -> None:
    facts = {fact.label for fact in report(place, "first").facts}
    assert "Change from the start" not in facts, "it lacks a third of the verdicts"
    place.add(evaluation(outcomes({"1": 0.0})))
    found = report(place, "first")
    facts = {fact.label: fact for fact in found.facts}
    # MMStar and BLINK alike: 1 became right, 2 wrong.
    assert facts["Questions gained, lost"].value == "+2 \u22122"
    assert facts["Change from the start"].value == "0.0"
    assert facts["Change from the start"].note.startswith("95 % interval \u2212")
    assert facts["Change from the start"].tone == ""
    assert facts["Mean score"].value == NOTHING
    assert facts["Mean score"].note == "no mean: AI2D, ChartQA and 10 more not measured"
    assert facts["Steps"].note == "1.5 s each, the median"
    assert facts["Tokens trained on"].value == "1,000"
    assert found.subtitle == "nano trained by ril, teachers: both, seed 3"
    source = found.sources[1]
    assert source.role == "after"
    assert ("fingerprint", "after1") in source.lines
    assert [line[0] for line in source.data] == ["MMStar", "BLINK"]
    assert found.steps[0].steps[1].number == 10


def test_a_run_whose_folder_is_gone_is_reported_from_the_ledger(place: Place) -> None:
    import shutil

    shutil.rmtree(place.run)
    found = report(place, "first")
    assert found.steps == []
    assert len(found.curves) == 3


def test_labels_with_control_characters_are_made_visible(place: Place) -> None:
    place.add(evaluation(outcomes({}), student="a\x1b[31m/../\u202e'\"", fingerprint="odd222"))
    found = report(place, "6")
    assert found.rows[0].label == "a␛[31m/../⟨U+202E⟩'\""
    assert found.sets[0].columns[0].label == found.rows[0].label
