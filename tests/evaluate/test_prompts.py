"""What the cache of prompts depends on."""

from pathlib import Path

import pytest

from rilbench.errors import UserError
from rilbench.evaluate.prompts import PromptSet
from rilbench.evaluate.suite import find_suite


def test_name_follows_data_kit_and_limit(data: Path, tmp_path: Path) -> None:
    def name(folder: Path, environment: str = "kit-1", limit: int | None = None) -> str:
        return PromptSet(
            find_suite("nano").datasets, folder, tmp_path / "c", environment, limit
        ).name

    copy = tmp_path / "copy"
    copy.mkdir()
    for file in data.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert name(data) == name(copy)
    (copy / "MMVet.tsv").write_bytes((data / "MMVet.tsv").read_bytes() + b"\n")
    names = {name(data), name(copy), name(data, "kit-2"), name(data, limit=1), name(data, limit=2)}
    assert len(names) == 5


def test_missing_files_are_named(data: Path, tmp_path: Path) -> None:
    (tmp_path / "MMStar.tsv").write_bytes((data / "MMStar.tsv").read_bytes())
    with pytest.raises(
        UserError, match=r"lacks AI2D_TEST\.tsv, ChartQA_TEST\.tsv, .*, RealWorldQA\.tsv"
    ):
        PromptSet(find_suite("nano").datasets, tmp_path, tmp_path / "c", "kit", None)
    with pytest.raises(UserError, match="--limit must be at least 1, not 0"):
        PromptSet(find_suite("nano").datasets, data, tmp_path / "c", "kit", 0)
