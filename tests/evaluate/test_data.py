"""Data files: their place and state, their download, and the conversion of MM-Vet v2."""

import base64
import hashlib
import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from rilbench.errors import UserError
from rilbench.evaluate.convert_mmvet_v2 import convert_mmvetv2
from rilbench.evaluate.data import (
    check_data,
    data_folder,
    download_data,
    ensure_data,
    file_hashes,
    usable_files,
)
from rilbench.evaluate.data_content import read_contents
from rilbench.evaluate.kits.environment import ensure_environment
from rilbench.evaluate.suite import Dataset, Suite, find_suite
from rilbench.paths import nano_folder

PAPER = find_suite("paper")
STAND_INS = nano_folder() / "benchmarks"


def test_the_folder_is_the_chosen_one_or_the_kits_or_the_nano_sandboxs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("LMUData", raising=False)
    assert data_folder(PAPER) == Path.home() / "LMUData"
    monkeypatch.setenv("LMUData", str(tmp_path))
    assert data_folder(PAPER) == tmp_path
    assert data_folder(PAPER, Path("mine")) == Path("mine")
    assert data_folder(find_suite("nano")) == STAND_INS


def test_a_stand_in_is_known_by_its_hash_and_a_changed_one_says_why_not(tmp_path: Path) -> None:
    suite = find_suite("nano").pick(["MMStar", "BLINK", "RWQA"])
    for dataset in suite.datasets[:2]:
        shutil.copy(STAND_INS / f"{dataset.name}.tsv", tmp_path)
    (tmp_path / "BLINK.tsv").open("a").write("\n")
    files = {file.dataset.name: file for file in check_data(suite, tmp_path)}
    states = {name: file.state for name, file in files.items()}
    assert states == {"MMStar": "stand-in", "BLINK": "unverified", "RealWorldQA": "missing"}
    found, expected = (file_hashes(f / "BLINK.tsv")[0][:16] for f in (tmp_path, STAND_INS))
    assert files["BLINK"].reason == f"SHA-256 is {found}, expected {expected}"
    assert files["MMStar"].reason == files["RealWorldQA"].reason == ""
    with pytest.raises(UserError, match=r"RealWorldQA\.tsv in .* is missing"):
        ensure_data(suite, tmp_path, Path("no python"), lambda _: None)


def test_a_published_file_is_known_by_its_hash_and_another_says_why_not(tmp_path: Path) -> None:
    content = b"index\tquestion\n0\tWhich?\n"
    for name in ("AI2D_TEST", "MMStar", "MMVetV2"):
        (tmp_path / f"{name}.tsv").write_bytes(content)
    md5 = hashlib.md5(content).hexdigest()
    files = {"vlmevalkit": (Dataset(name="AI2D_TEST", questions=1, md5=md5),)}
    known = replace(PAPER.benchmarks[0], by_kit=files)
    suite: Suite = replace(
        PAPER, benchmarks=(known, *PAPER.pick(["MMStar", "MM-Vet-v2"]).benchmarks)
    )
    found = check_data(suite, tmp_path)
    by_name = {file.dataset.name: (file.state, file.reason) for file in found}
    assert by_name == {
        "AI2D_TEST": ("published", ""),
        "MMStar": (
            "unverified",
            f"MD5 is {md5}, expected e1ecd2140806c1b1bbf54b43372efb9e; 1 of the 1,500 published "
            "questions",
        ),
        "MMVetV2": (
            "unverified",
            "vlmevalkit pins no hash of it; 1 of the 517 published questions",
        ),
    }
    assert found[0].sha256 == hashlib.sha256(content).hexdigest()
    assert file_hashes(tmp_path / "MMStar.tsv")[1] == md5


@pytest.mark.integration
def test_without_a_network_the_missing_file_and_its_place_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # Wherever this runs: no way out.
    suite = PAPER.pick(["RWQA", "BLINK"])
    (tmp_path / "BLINK.tsv").write_text("mine")
    said: list[str] = []
    with pytest.raises(
        UserError,
        match=r"^RealWorldQA\.tsv in \S+ is missing, and cannot be downloaded \(no answer from "
        r"https://\S+/RealWorldQA\.tsv\); copy it there, or give .* --data$",
    ):
        ensure_data(suite, tmp_path, ensure_environment("vlmevalkit"), said.append)
    assert said == ["downloading RealWorldQA.tsv"]
    assert (tmp_path / "BLINK.tsv").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["BLINK.tsv"], "nothing is left over"


def test_what_the_user_has_to_convert_is_said_first_or_after_the_downloads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evaluating stops before anything is downloaded; downloading gets what can be had."""
    suite, got = PAPER.pick(["MM-Vet-v2", "MMStar"]), []
    monkeypatch.setattr(
        "rilbench.evaluate.data._download", lambda absent, *_: got.extend(d.name for d in absent)
    )
    converted = r"MMVetV2\.tsv in .* is missing; get mm-vet-v2\.zip .* rilbench data mm-vet-v2"
    with pytest.raises(UserError, match=converted):
        ensure_data(suite, tmp_path, Path("python"), lambda _: None)
    assert got == []
    with pytest.raises(UserError, match=converted):
        download_data(suite, tmp_path, Path("python"), lambda _: None)
    assert got == ["MMStar"]
    (tmp_path / "MMVetV2.tsv").touch()
    download_data(suite, tmp_path, Path("python"), lambda _: None)


def publish(folder: Path, questions: dict[str, dict[str, object]]) -> Path:
    (folder / "images").mkdir(parents=True)
    for name in ("v2_0.png", "a.jpg"):
        (folder / "images" / name).write_bytes(name.encode() * 40)
    (folder / "mm-vet-v2.json").write_text(json.dumps(questions))
    return folder


def test_mm_vet_v2_is_converted_to_the_kits_format(tmp_path: Path) -> None:
    questions: dict[str, dict[str, object]] = {
        "v2_0": {"question": "What is x?<IMG>v2_0.png", "answer": "1<AND>2", "capability": ["ocr"]},
        "v2_1": {
            "question": "Look at<IMG>a.jpg<IMG>, not at<IMG>v2_0.png<IMG>.\nWhy?",
            "answer": "so",
            "capability": ["rec", "seq"],
        },
    }
    source = publish(tmp_path / "published", questions)
    path = convert_mmvetv2(source, tmp_path / "data")
    table = pd.read_csv(path, sep="\t")
    assert list(table["index"]) == ["v2_0", "v2_1"]
    assert list(table["question"]) == [
        "What is x? <image 1>",
        "Look at <image 1> , not at <image 2> .\nWhy?",
    ]
    assert list(table["category"]) == ["ocr", "rec,seq"]
    assert base64.b64decode(table["image"][0]) == b"v2_0.png" * 40
    assert table["image"][1].startswith("['")
    with pytest.raises(UserError, match="exists; move it away"):
        convert_mmvetv2(source, tmp_path / "data")
    with pytest.raises(UserError, match=r"mm-vet-v2\.json does not exist"):
        convert_mmvetv2(tmp_path, tmp_path / "other")
    for wrong in ({"v2_0": {"question": "q"}}, {"v2_0": {**questions["v2_0"], "question": "q"}}):
        (source / "mm-vet-v2.json").write_text(json.dumps(wrong))
        with pytest.raises(UserError, match="is not MM-Vet v2's list"):
            convert_mmvetv2(source, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def picture(kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((40, 40), 90).convert("RGB").save(stream, kind)
    return stream.getvalue()


def table(folder: Path, answers: Sequence[str], image: bytes | str = b"") -> Path:
    """RealWorldQA with these golds."""
    file = folder / "RealWorldQA.tsv"
    shown = image if isinstance(image, str) else base64.b64encode(image or picture()).decode()
    lines = ["index\timage\tquestion\tA\tB\tanswer"]
    lines += [f"{i}\t{shown}\tWhich?\tred\tNone\t{gold}" for i, gold in enumerate(answers)]
    file.write_text("\n".join(lines) + "\n")
    return file


RWQA = PAPER.pick(["RWQA"])


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n", "an HTML page, such as a"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\n", "a git-lfs pointer; run"),
        (b"", "an empty file; download it again"),
        (
            b"name\tvalue\n1\t2\n",
            r"not a table of questions: it lacks index and question, and its columns are",
        ),
        (b"index\tquestion\n0\tGr\xf6\xdfe?\n", "not a table in UTF-8"),
        (b"index\tquestion\n", "a table without a question"),
        (b"index\tquestion\tanswer\n0\tWhich?\tA\n1\tWhi", "cut off after 1 questions"),
    ],
)
def test_what_a_failed_download_left_is_named_and_not_asked(
    tmp_path: Path, content: bytes, why: str
) -> None:
    file = tmp_path / "RealWorldQA.tsv"
    file.write_bytes(content)
    (found,) = check_data(RWQA, tmp_path)
    md5 = hashlib.md5(content).hexdigest()
    assert found.state == "broken"
    assert found.reason.startswith(why)
    assert f"MD5 is {md5}, expected 4de008f55dc4fd008ca9e15321dc44b7" in found.reason
    with pytest.raises(
        UserError, match=r"RealWorldQA\.tsv is .*; get it again, or leave out RealWorldQA"
    ):
        usable_files(RWQA, tmp_path)


@pytest.mark.parametrize(
    ("answers", "image", "faults"),
    [
        ("AB" * 382 + "A", b"", ""),
        ("B" * 9, b"", "; 9 of the 765 published questions"),
        (
            ["B", "b", " B ", "(B)", "green", "2", "E", ""] + ["A"] * 757,
            b"",
            "; the answer is none of the options and always wrong: question 1, 2, 3 and 4 more",
        ),
        ("B" * 765, picture("JPEG")[:-400], "; a picture cannot be read: question 0, 1, 2 and 762"),
        ("B" * 765, "['no picture']", "; a picture cannot be read: question 0, 1, 2 and 762 more"),
        ("B" * 765, "7", ""),
        ("B" * 765, "900", "; a picture cannot be read: question 0, 1, 2 and 762 more"),
    ],
    ids=["whole", "few", "golds", "cut picture", "no picture", "of row 7", "of no row"],
)
def test_another_release_is_read_before_it_is_asked(
    tmp_path: Path, answers: Sequence[str], image: bytes | str, faults: str
) -> None:
    """Golds, pictures and number; what is whole differs from the published file by its hash."""
    table(tmp_path, answers, image)
    (found,) = usable_files(RWQA, tmp_path).values()
    assert found.state == "unverified"
    before, _, after = found.reason.partition("expected 4de008f55dc4fd008ca9e15321dc44b7")
    assert before.startswith("MD5 is ")
    assert after.startswith(faults)
    assert bool(after) == bool(faults)


def test_rotations_count_once_and_other_splits_do_not_count(tmp_path: Path) -> None:
    rows = [f"{i + turn}\tWhich?\tdev" for i in range(3) for turn in (0, 1_000_000)]
    file = tmp_path / "x.tsv"
    file.write_text("\n".join(["index\tquestion\tsplit", *rows, "9\tWhich?\ttest\n"]))
    data = Dataset(name="x", questions=3, circular=True, split="dev")
    assert read_contents(file, data).questions == 3
    assert read_contents(file, replace(data, circular=False)).questions == 6


def test_a_parquet_file_that_is_cut_is_named(tmp_path: Path) -> None:
    suite = PAPER.by("lmms-eval").pick(["MMStar"])
    folder = tmp_path / suite.datasets[0].hub
    folder.mkdir(parents=True)
    file = folder / "val-00000-of-00001.parquet"
    pd.DataFrame({"x": [1, 2]}).to_parquet(file)
    assert check_data(suite, tmp_path)[0].state == "unverified"
    file.write_bytes(file.read_bytes()[:-10])
    (found,) = check_data(suite, tmp_path)
    assert (found.state, found.reason) == (
        "broken",
        "not a whole Parquet file; download it again (val-00000-of-00001.parquet)",
    )
