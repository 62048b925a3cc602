"""Benchmarks as files: the paper's 14, one of the user's, one of an installed plug-in."""

from pathlib import Path

import pytest
from command import refused, run

from rilbench.benchmark_names import PAPER_14
from rilbench.errors import UserError
from rilbench.evaluate.benchmark import (
    KITS,
    Dataset,
    is_shipped,
    read_benchmark,
    read_own_benchmark,
)
from rilbench.evaluate.kits.scores import Outcome, summed_up
from rilbench.evaluate.kits.trial import with_total
from rilbench.evaluate.suite import find_suite

OCR = """
name = "OCR"

[[vlmevalkit]]
name = "TextVQA_VAL"
questions = 5000
scale = 100
judging = "none"

[[lmms-eval]]
name = "textvqa_val"
questions = 5000
metric = "exact_match"
judging = "none"
only = ["set", "val"]
rounding = 1
"""


def write(folder: Path, text: str, name: str = "mine.toml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(text)
    return file


def test_a_file_becomes_a_benchmark(tmp_path: Path) -> None:
    benchmark = read_benchmark(write(tmp_path, OCR))
    assert benchmark.column == "OCR"
    assert not benchmark.stand_in
    assert benchmark.datasets == (
        Dataset(name="TextVQA_VAL", questions=5000, scale=100, judging="none"),
    )
    (task,) = benchmark.by_kit["lmms-eval"]
    assert (task.only, task.rounding) == (("set", "val"), 1)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "OCR"', "", 'has no name; add: name = "TEXT"'),
        ("questions = 5000\nscale", "scale", r"\[\[vlmevalkit\]\] 1 has no questions; add: .*NUMB"),
        ("scale", "scal", r"\[\[vlmevalkit\]\] 1: unknown field 'scal'; the nearest .* 'scale'"),
        ("[[lmms-eval]]", "[[lmms]]", "unknown field 'lmms'; the nearest .* 'lmms-eval'"),
        ("questions = 5000", 'questions = "all"', "questions must be a whole number, not 'all'"),
        ("questions = 5000", "questions = true", "questions must be a whole number, not True"),
        ("questions = 5000", "questions = 0", "questions must be at least 1, not 0"),
        ("scale = 100", "scale = 10", "scale must be 1 or 100, not 10"),
        ('name = "OCR"', "name = 3", "name must be text in quotes, not 3"),
        ('name = "OCR"', 'name = "A,B"', "has a comma"),
        ('name = "OCR"', 'name = "OCR"\nstand_in = "yes"', "stand_in must be true or false"),
        ('"TextVQA_VAL"', '"../TextVQA_VAL"', "is empty or a path"),
        ('["set", "val"]', '["set"]', "only must be a list of two texts"),
        ("rounding = 1", "rounding = [1]", "rounding must be a number"),
        ('judging = "none"', 'judging = "human"', "unknown judging 'human'; choose from none"),
        ('judging = "none"', 'judging = "grader"', "with vlmevalkit a judge can grade only Math"),
        ("[[vlmevalkit]]", "[vlmevalkit]", r"vlmevalkit must be \[\[sections\]\]"),
        ('name = "OCR"', "name = OCR", "is not valid TOML .*line 2.*; correct it"),
    ],
)
def test_a_wrong_field_is_named_with_its_remedy(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in OCR
    file = write(tmp_path, OCR.replace(old, new, 1))
    with pytest.raises(UserError, match=message) as error:
        read_benchmark(file)
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


def test_a_file_without_data_sets_or_with_a_taken_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no data set; add a section \[\[vlmevalkit\]\]"):
        read_benchmark(write(tmp_path, 'name = "A"'))
    lmms = OCR.replace('"OCR"', '"OCR"\nstand_in = true').replace("vlmevalkit", "lmms-eval")
    file = write(tmp_path, lmms)
    with pytest.raises(UserError, match=r"stand-ins are VLMEvalKit's files; add"):
        read_benchmark(file)
    with pytest.raises(UserError, match=r"'mmstar' is defined twice, by .*mine\.toml; rename one"):
        read_own_benchmark(write(tmp_path, OCR.replace("OCR", "mmstar")))
    with pytest.raises(UserError, match=r"other\.toml cannot be read .*; check its path"):
        read_own_benchmark(tmp_path / "other.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(UserError, match=r"is not valid TOML .*utf-8"):
        read_benchmark(tmp_path / "latin.toml")


def test_a_file_is_picked_beside_names_and_only_where_it_has_data(tmp_path: Path) -> None:
    paper, nano, file = find_suite("paper"), find_suite("nano"), write(tmp_path, OCR)
    assert paper.pick([str(file), "mmstar", "AI2D"]).columns == ["AI2D", "MMStar", "OCR"]
    assert paper.by("lmms-eval").pick([str(file)]).datasets[0].name == "textvqa_val"
    with pytest.raises(UserError, match="OCR has no synthetic stand-in; use --suite paper"):
        nano.pick([str(file)])
    only_vlm = OCR[: OCR.index("[[lmms-eval]]")].replace('"OCR"', '"OCR"\nstand_in = true')
    file = write(tmp_path, only_vlm)
    assert nano.pick([str(file)]).columns == ["OCR"]
    with pytest.raises(UserError, match="OCR has no data set for lmms-eval; use --kit vlmevalkit"):
        paper.by("lmms-eval").pick([str(file)])
    write(tmp_path, OCR.replace('"OCR"', '"OCR"\nstand_in = true'))
    with pytest.raises(UserError, match="stand-ins of the paper's 14 benchmarks only"):
        nano.by("lmms-eval").pick([str(file)])
    write(tmp_path, OCR.replace("TextVQA_VAL", "MMStar"))
    with pytest.raises(UserError, match="two benchmarks read MMStar; evaluate one at a time"):
        paper.pick(["MMStar", str(file)])


def test_any_data_set_of_a_kit_by_its_name() -> None:
    paper = find_suite("paper")
    (named,) = paper.pick(["vlmevalkit:DocVQA_VAL"]).benchmarks
    (dataset,) = named.datasets
    assert (named.column, dataset.name, dataset.metric) == ("DocVQA_VAL", "DocVQA_VAL", "Overall")
    assert (dataset.questions, dataset.scale, dataset.circular) == (0, 0, False)
    assert paper.pick(["vlmevalkit:MMBench_dev_pt"]).datasets[0].circular
    # What is known already is not taken for something else.
    assert paper.pick(["vlmevalkit:AI2D_TEST", "MMStar"]).columns == ["AI2D", "MMStar"]
    assert paper.pick(["vlmevalkit:BLINK_circular"]).columns == ["BLINK_circular"]
    assert paper.pick(["vlmevalkit:AI2D"]).columns == ["vlmevalkit:AI2D"]
    with pytest.raises(
        UserError, match="docvqa_val has no data set for vlmevalkit; use --kit lmms"
    ):
        paper.pick(["lmms-eval:docvqa_val"])
    with pytest.raises(
        UserError, match=r"'vlmevalkit:../x' names no data set; write vlmevalkit:NA"
    ):
        paper.pick(["vlmevalkit:../x"])
    with pytest.raises(UserError, match=r"unknown benchmark 'DocVQA_VAL'.*vlmevalkit:NAME or lmms"):
        paper.pick(["DocVQA_VAL"])


def test_a_total_of_unknown_scale_is_the_mean_of_its_questions() -> None:
    (dataset,) = find_suite("paper").pick(["vlmevalkit:DocVQA_VAL"]).datasets
    score = summed_up([Outcome("1", 1.0, ""), Outcome("2", 0.25, "")], 0.0)
    for total in (0.625, 62.5):
        assert with_total(dataset, score, total, None).value == 62.5
    with pytest.raises(
        UserError, match=r"Overall 0.7 is no mean of .* 62.5; choose another metric"
    ):
        with_total(dataset, score, 0.7, None)


def test_only_data_sets_of_which_everything_is_declared_need_no_trial(tmp_path: Path) -> None:
    paper = find_suite("paper")
    assert all(is_shipped(d) for kit in KITS for d in paper.by(kit).datasets)
    (pope,) = paper.pick(["vlmevalkit:POPE"]).datasets
    assert (pope.metric, pope.row, pope.scale) == ("Overall", ("split", "Overall"), 100)
    (own,) = read_benchmark(write(tmp_path, OCR)).datasets
    assert not is_shipped(pope)
    assert not is_shipped(own)
    (known,) = paper.pick(["vlmevalkit:MMStar"]).datasets
    assert is_shipped(known)


def install(folder: Path, target: str) -> str:
    """Make a distribution with an entry point to ``target``; return its place for PYTHONPATH."""
    info = folder / "ocr_bench-1.0.dist-info"
    write(info, "Metadata-Version: 2.1\nName: ocr-bench\nVersion: 1.0\n", "METADATA")
    write(info, f"[rilbench.benchmarks]\nocr = {target}\n", "entry_points.txt")
    return str(folder)


@pytest.mark.integration
def test_an_installed_package_provides_a_benchmark(tmp_path: Path) -> None:
    place = install(tmp_path, "ocr_bench.files")
    write(tmp_path / "ocr_bench" / "files", "", "__init__.py")
    write(tmp_path / "ocr_bench", "", "__init__.py")
    write(tmp_path / "ocr_bench" / "files", OCR, "ocr.toml")
    for suite in ("nano", "paper"):
        done = run("eval", "--list", "--suite", suite, cwd=tmp_path, PYTHONPATH=place)
        assert done.returncode == 0, done.stderr
        listed = [line.split()[0] for line in done.stdout.splitlines() if not line[0].isspace()]
        assert [name for name in listed if name in PAPER_14] == list(PAPER_14)
        assert "OCR" in listed
        assert "TextVQA_VAL.tsv" in done.stdout
    options = ["--suite", "paper", "--benchmarks", "ocr", "--kit", "lmms-eval"]
    done = run("eval", "--list", *options, cwd=tmp_path, PYTHONPATH=place)
    assert done.stdout.splitlines()[1].split()[:3] == ["OCR", "textvqa_val", "5,000"]
    # The default of the nano suite is still the 14.
    done = run("eval", "--dry-run", "--limit", "1", cwd=tmp_path, PYTHONPATH=place)
    asked = [line.split()[0] for line in done.stdout.splitlines()[1:-1]]
    assert asked == [*PAPER_14, "all"], done.stderr
    done = run("eval", "--dry-run", "--benchmarks", "OCR", cwd=tmp_path, PYTHONPATH=place)
    refused(done, "OCR has no synthetic stand-in; use --suite paper")
    # The name is taken now.
    mine = str(write(tmp_path, OCR))
    done = run("eval", "--list", "--benchmarks", mine, cwd=tmp_path, PYTHONPATH=place)
    refused(done, "benchmark 'OCR' is defined twice", "rename one")


@pytest.mark.parametrize(
    ("target", "files", "message"),
    [
        ("ocr_bench", {}, "cannot be loaded (ModuleNotFoundError"),
        ("ocr_bench", {"ocr_bench.py": ""}, "'ocr' is not a package of TOML files"),
        ("ocr_bench", {"ocr_bench/__init__.py": "1 / 0"}, "fix or uninstall ocr-bench"),
        (
            "ocr_bench",
            {
                "ocr_bench/__init__.py": "",
                "ocr_bench/a.toml": OCR.replace("OCR", "MMSTAR"),
            },
            "'MMSTAR' is defined twice",
        ),
        (
            "ocr_bench",
            {"ocr_bench/__init__.py": "", "ocr_bench/a.toml": "name = "},
            "is not valid TOML",
        ),
    ],
)
def test_a_wrong_plugin_is_told_in_one_line(
    tmp_path: Path, target: str, files: dict[str, str], message: str
) -> None:
    place = install(tmp_path, target)
    for name, text in files.items():
        write((tmp_path / name).parent, text, Path(name).name)
    done = run("eval", "--list", cwd=tmp_path, PYTHONPATH=place)
    refused(done, message)
