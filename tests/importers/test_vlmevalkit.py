"""Folders of VLMEvalKit, most of them written by the kit itself."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from kit_folders import FORMS, READ_BY_JUDGE, run_vlmevalkit
from openpyxl import Workbook, load_workbook

from rilbench.evaluate.kits.scores import summed_up
from rilbench.evaluate.suite import find_suite
from rilbench.importers.folder import files_below, read_folder
from rilbench.importers.vlmevalkit import parse_name

NANO = find_suite("nano")


def read(folder):
    return read_folder(files_below(folder), NANO)


def only(folder):
    (model,) = read(folder).models
    return model


def why(found):
    return {skipped.file.name: skipped.why for skipped in found.skipped}


@pytest.fixture
def copy(vlmevalkit, tmp_path):
    """A folder with the kit's files of some datasets."""

    def make(*names, home="outputs/model", model="model"):
        folder = tmp_path / home
        folder.mkdir(parents=True, exist_ok=True)
        for file in vlmevalkit.iterdir():
            name = parse_name(file, NANO)
            if file.suffix != ".pkl" and name is not None and name.dataset.name in names:
                shutil.copy2(file, folder / file.name.replace("model", model, 1))
        return folder

    return make


def test_scores_are_those_of_rilbench(vlmevalkit, own_scores, answers):
    model = only(vlmevalkit)
    assert (model.kit, model.model, model.folder) == ("vlmevalkit", "model", vlmevalkit)
    assert set(model.datasets) == set(answers) - {"MMVetV2"}
    for name, result in model.datasets.items():
        own = own_scores[name]
        ids = {o.question_id: o.value for o in own.outcomes}
        if name == "MMBench_DEV_EN":
            # rilbench sees where the judge failed; the kit's file hides it where luck helped.
            kept = [o for o in own.outcomes if not o.judged]
            assert 0 < own.missing < result.missing
            assert result.value == pytest.approx(summed_up(kept, 0.0).value)
            ids |= {o.question_id: None for o in own.outcomes if o.judged}
        else:
            assert result.value == pytest.approx(own.value, abs=1e-9), name
            assert result.missing == own.missing
        assert {q.question_id: q.score for q in result.questions} == ids, name
        assert result.count == len(own.outcomes)
        assert result.kit_version == "unknown"


def test_who_decided(vlmevalkit, own_scores):
    """A file named after a judge says nothing of who decided; the questions' logs do."""
    datasets = only(vlmevalkit).datasets
    judged = {name for name, result in datasets.items() if result.judge is not None}
    assert judged == {"MathVista_MINI", "MMVet", *READ_BY_JUDGE}
    assert {datasets[name].judge for name in judged} == {"gpt-4-turbo"}
    own = {o.question_id for o in own_scores["MMStar"].outcomes if o.judged}
    assert {q.question_id for q in datasets["MMStar"].questions if q.judged} == own
    assert 0 < len(own) < len(own_scores["MMStar"].outcomes)


def test_questions_are_kept_as_they_were(vlmevalkit, answers, tsv):
    datasets = only(vlmevalkit).datasets
    for name in ("MMStar", "ChartQA_TEST", "MMVet", "MathVista_MINI"):
        found = {q.question_id: q.response for q in datasets[name].questions}
        assert found == answers[name]  # "=0" too, which is a formula in a workbook
    with (tsv / "MMStar.tsv").open(newline="") as stream:
        csv.field_size_limit(2**31 - 1)
        golds = {row["index"]: row["answer"] for row in csv.DictReader(stream, delimiter="\t")}
    assert {q.question_id: q.gold for q in datasets["MMStar"].questions} == golds
    # The kit rewrites MMBench's answers, and "=0" is lost.
    second = datasets["MMBench_DEV_EN"].questions[1]
    rotations = [f"{int(second.question_id) + turn * 1_000_000}" for turn in range(2)]
    own = answers["MMBench_DEV_EN"]
    assert second.response == "\n---\n".join(own[name] for name in rotations)
    assert second.gold in ("A,B", "B,A")
    assert {q.extracted for q in datasets["ChartQA_TEST"].questions} > {"no idea"}
    assert all(q.stem for result in datasets.values() for q in result.questions)


def test_a_guess_is_no_verdict(vlmevalkit, answers):
    result = only(vlmevalkit).datasets["MMStar"]
    lost = {q.question_id for q in result.questions if q.score is None}
    assert lost
    assert lost == {index for index, text in answers["MMStar"].items() if text == FORMS[-1]}
    assert "MMStar: 2 verdicts that nobody gave are left out" in result.notes


def test_mmvet_of_version_two_has_the_same_files(copy):
    folder = copy("MMVet")
    for file in folder.iterdir():
        file.rename(folder / file.name.replace("MMVet", "MMVetV2"))
    assert set(only(folder).datasets) == {"MMVetV2"}


def test_a_run_has_a_folder_of_its_own(copy):
    copy("MMStar", home="outputs/model/T20250101_Gaaaaaaaa")
    new = copy("MMStar", "AI2D_TEST", home="outputs/model/T20260101_G1a2b3c4d")
    old = copy("BLINK", home="outputs/model/T20250101_Gaaaaaaaa")
    model = only(old.parent.parent)
    assert model.folder == old.parent
    assert {name: result.kit_version for name, result in model.datasets.items()} == {
        "MMStar": "commit 1a2b3c4d",
        "AI2D_TEST": "commit 1a2b3c4d",
        "BLINK": "commit aaaaaaaa",
    }
    assert {file.parent for file in model.datasets["MMStar"].files} == {new}
    assert model.notes == ("MMStar of T20250101_Gaaaaaaaa is older and not imported",)


def test_links_to_the_newest_run_are_no_second_result(copy):
    run = copy("MMStar", home="outputs/model/T20260101_G1a2b3c4d")
    for file in run.iterdir():
        (run.parent / file.name).symlink_to(file)
    model = only(run.parent)
    assert model.notes == ()
    assert model.datasets["MMStar"].kit_version == "commit 1a2b3c4d"


def test_the_status_names_the_kits_commit(copy):
    folder = copy("MMStar", home="outputs/model/T20260101-120000")
    status = {"eval_id": folder.name, "datasets": {}, "commit": "0123abcd"}
    (folder / "status.json").write_text(json.dumps(status))
    found = read(folder.parent.parent)
    assert found.models[0].datasets["MMStar"].kit_version == "commit 0123abcd"
    assert found.skipped == []


def test_a_total_that_its_questions_contradict_comes_alone(copy):
    folder = copy("MMStar")
    file = folder / "model_MMStar_acc.csv"
    lines = list(csv.DictReader(file.open()))
    lines[0]["Overall"] = "0.25"
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    result = only(folder).datasets["MMStar"]
    assert (result.value, result.questions, result.judge) == (25, (), "unknown")
    assert result.count == 14  # as the answers beside it say
    assert "the total alone, as 25.0000 is not the mean of its questions" in result.notes[0]


def test_a_total_alone(copy):
    folder = copy("MMStar", "ChartQA_TEST")
    for file in folder.iterdir():
        if "_acc" not in file.name:
            file.unlink()
    datasets = only(folder).datasets
    assert {n: (r.questions, r.count, r.judge) for n, r in datasets.items()} == {
        "MMStar": ((), 0, "unknown"),
        "ChartQA_TEST": ((), 0, None),
    }


def test_what_is_not_scored_yet_is_named(copy):
    folder = copy("MMStar")
    (folder / "model_MMStar_acc.csv").unlink()
    found = read(folder)
    assert found.models == []
    assert set(why(found).values()) == {"has no score beside it; let the kit finish its evaluation"}


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "no zip member"])
def test_a_broken_workbook_costs_its_questions_only(copy, damage):
    folder = copy("MMStar", "AI2D_TEST")
    file = folder / "model_MMStar_gpt-4-turbo_result.xlsx"
    content = file.read_bytes()
    new = {"cut": content[: len(content) // 2], "text": b"index,hit\n", "empty": b""}
    file.write_bytes(new.get(damage, b"PK\x05\x06" + b"\0" * 18))
    found = read(folder)
    (model,) = found.models
    assert len(model.datasets["AI2D_TEST"].questions) == 14
    assert model.datasets["MMStar"].questions == ()
    assert model.datasets["MMStar"].notes == (
        "MMStar: the total alone, as its questions cannot be read",
    )
    assert why(found)[file.name].startswith(("is no workbook, or cut short", "cannot be read"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "has no row"),
        ('"split","Overall"\n"none","high"\n', "has 'high' where a number should be"),
        ('"split","Overall"\n"none","1.5"\n', "has a score of 150.0"),
        ('"split","Overall"\n"none"\n', "another length"),
        ('"split","Overall"\n"none",""\n', "no number"),
        ('"a"\n"b"\n', "is not the score of MMStar"),
        ('"split","Overall"\n"none","0.5"\n"x","0.5"\n', "is not the score of MMStar"),
        ("\0\udcff", "cannot be read"),
    ],
)
def test_a_broken_total_costs_the_dataset(copy, text, reason):
    folder = copy("MMStar", "AI2D_TEST")
    file = folder / "model_MMStar_acc.csv"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    found = read(folder)
    assert set(found.models[0].datasets) == {"AI2D_TEST"}
    assert reason in why(found)[file.name]


def edit(file, change):
    book = load_workbook(file)
    change(book.worksheets[0])
    book.save(file)


def test_an_index_twice_costs_the_questions(copy):
    folder = copy("MMStar")
    file = folder / "model_MMStar_gpt-4-turbo_result.xlsx"

    def twice(sheet):
        sheet["A3"] = sheet["A2"].value

    edit(file, twice)
    found = read(folder)
    assert why(found)[file.name] == "has an index twice, or none"
    assert found.models[0].datasets["MMStar"].questions == ()


def test_other_answers_than_those_that_were_scored(copy):
    folder = copy("MMStar")
    edit(folder / "model_MMStar.xlsx", lambda sheet: sheet.delete_rows(2))
    found = read(folder)
    name = "model_MMStar_gpt-4-turbo_result.xlsx"
    assert why(found)[name] == "has questions that the answers beside it lack"


def test_pickles_and_foreign_files_are_named(copy):
    folder = copy("MMStar")
    (folder / "model_MMStar_gpt-4-turbo_result.pkl").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    (folder / "holiday.jpg").write_bytes(b"x")
    (folder / "model_MMBench_DEV_EN_V11_acc.csv").write_text("x")
    (folder / "gone.csv").symlink_to(folder / "nowhere")
    (folder / ".hidden").write_text("x")
    (folder / "run.log").write_text("x")
    found = read(folder)
    assert why(found) == {
        "model_MMStar_gpt-4-turbo_result.pkl": "can run code when it is read",
        "holiday.jpg": "is no kit's result for a benchmark of the suite nano",
        "model_MMBench_DEV_EN_V11_acc.csv": "is no kit's result for a benchmark of the suite nano",
        "gone.csv": "is a link to nothing",
    }
    assert len(found.models) == 1


@pytest.mark.parametrize("name", ["a'b\"c", "..", "x y\x07\x1b[0m", "a\nb", "Ünï_MMStar", "=1+1"])
def test_any_name_of_a_model(copy, name):
    folder = copy("MMStar", home=f"outputs/{'dots' if name == '..' else name}", model=name)
    assert only(folder).model == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("m_MMStar.xlsx", ("m", "MMStar", "answers", "")),
        ("m_MMStar_acc.csv", ("m", "MMStar", "total", "")),
        ("m_MMStar_acc.json", ("m", "MMStar", "total", "")),
        ("m_MMStar_gpt-4o-mini_result.xlsx", ("m", "MMStar", "questions", "gpt-4o-mini")),
        ("m_MMStar_openai_result.xlsx", ("m", "MMStar", "questions", "chatgpt-0125")),
        ("m_MMVet_gpt-4-turbo.xlsx", ("m", "MMVet", "questions", "gpt-4-turbo")),
        ("m_MMVet_gpt-4-turbo_score.csv", ("m", "MMVet", "total", "gpt-4-turbo")),
        ("m_MMVet_gpt-4-turbo_score_fine.csv", ("m", "MMVet", "other", "")),
        ("m_MMVetV2_x_score.csv", ("m", "MMVetV2", "total", "x")),
        ("m_ChartQA_TEST_results.xlsx", ("m", "ChartQA_TEST", "questions", "")),
        ("a_MMStar_b_MMMU_Pro_V_acc.csv", ("a_MMStar_b", "MMMU_Pro_V", "total", "")),
        ("m_MMMU_Pro_V_COT_acc.csv", None),
        ("m_MMBench_DEV_EN_V11_x_result.xlsx", None),
        ("m_MMVet_Hard_x_score.csv", None),
        ("m_AI2D_TEST_NO_MASK_acc.csv", None),
        ("m_MMStarry_acc.csv", None),
        ("_MMStar_acc.csv", None),
        ("MMStar_acc.csv", None),
        ("m_MMStar_notes.csv", None),
        ("m_HallusionBench_score.csv", None),
    ],
)
def test_names(name, expected):
    found = parse_name(Path("x") / name, NANO)
    if found is not None:
        found = (found.model, found.dataset.name, found.kind, found.judge)
    assert found == expected


def test_the_kit_without_its_judge(copy):
    """The kit names the file after the judge that it could not reach."""
    folder = copy("AI2D_TEST")
    file = folder / "model_AI2D_TEST_exact_matching_result.xlsx"
    file.rename(folder / "model_AI2D_TEST_gpt-4o-mini_result.xlsx")
    result = only(folder).datasets["AI2D_TEST"]
    assert result.judge is None
    assert not any(question.judged for question in result.questions)
    assert len(result.questions) == 14


def test_what_was_never_answered_is_missing_and_not_wrong(tmp_path):
    """20 questions as the kit writes them: an API failed on 13, and one answer is empty."""
    columns = ("index", "question", "A", "B", "answer", "prediction")
    texts = ["B"] * 4 + ["so it is"] * 2 + ["Failed to obtain answer via API."] * 13 + [None]
    rows = [(n, f"Which colour, {n}?", "red", "green", "B", text) for n, text in enumerate(texts)]
    log = "Failed in Prefetch, no GPT-based answer matching under `exact_matching` policy."
    scored = [(*row, int(row[5] == "B"), row[5] if row[5] == "B" else log) for row in rows]
    folder = tmp_path / "M"
    folder.mkdir()
    for name, head, lines in (
        ("M_RealWorldQA.xlsx", columns, rows),
        ("M_RealWorldQA_exact_matching_result.xlsx", (*columns, "hit", "log"), scored),
    ):
        book = Workbook()
        for line in (head, *lines):
            book.active.append(line)
        book.save(folder / name)
    (folder / "M_RealWorldQA_acc.csv").write_text("split,Overall\nnone,0.2\n")
    result = only(tmp_path).datasets["RealWorldQA"]
    assert (result.value, result.count, result.missing) == (pytest.approx(100 * 4 / 6), 20, 14)
    assert [q.no_answer for q in result.questions[5:]] == ["", *["no response"] * 13, "empty"]
    assert [q.unread for q in result.questions[3:7]] == [False, True, True, False]
    assert result.notes == ("RealWorldQA: 14 questions without an answer are left out",)


@pytest.mark.slow
def test_the_kit_really_does_so(tmp_path, tsv, answers):
    """Its own run with a judge that nobody runs."""
    own = {name: answers[name] for name in ("MMStar", "MMBench_DEV_EN")}
    folder = run_vlmevalkit(tmp_path, tsv, own, list(own), "http://127.0.0.1:9/v1")
    assert (folder / "model_MMStar_gpt-4-turbo_result.xlsx").exists()
    for result in only(folder).datasets.values():
        assert result.judge is None
        assert result.missing == 0
        assert len(result.questions) == 14


@pytest.mark.slow
def test_other_formats_of_the_kits_tables(tmp_path, tsv, answers, judge, own_scores, monkeypatch):
    names = ("MMStar", "ChartQA_TEST", "MMVet", "MathVista_MINI", "BLINK")
    own = {name: answers[name] for name in names}
    judged = ["MMStar", "MMVet", "MathVista_MINI"]
    # The kit cannot score choices with its answers as JSON.
    monkeypatch.setenv("PRED_FORMAT", "tsv")
    monkeypatch.setenv("EVAL_FORMAT", "json")
    folder = run_vlmevalkit(tmp_path, tsv, own, judged, judge.url)
    assert {".tsv", ".json"} <= {file.suffix for file in folder.iterdir()}
    datasets = only(folder).datasets
    assert set(datasets) == set(names)
    for name, result in datasets.items():
        assert result.value == pytest.approx(own_scores[name].value, abs=1e-9), name
        assert len(result.questions) == 14, (name, result.notes)
