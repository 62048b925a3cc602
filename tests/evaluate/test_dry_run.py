"""What an evaluation would take, before anything is started or downloaded."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from one_file import one_file
from PIL import Image

from rilbench.checkpoint import Checkpoint, Labels
from rilbench.evaluate.cost_estimate import Estimate
from rilbench.evaluate.dry_run import dry_run_lines, picture_tokens
from rilbench.evaluate.image_resize import AS_IS, Pixels
from rilbench.evaluate.options import EvalOptions
from rilbench.evaluate.preview import preview
from rilbench.evaluate.prompts import BenchmarkQuestion, PromptSet
from rilbench.evaluate.responses import open_answers
from rilbench.serving import Completion


@pytest.fixture
def model(tmp_path: Path) -> Checkpoint:
    """A 7B's folder without weights."""
    folder = tmp_path / "seven"
    folder.mkdir()
    recipe = Path(__file__).parents[2] / "recipes/models/qwen2.5-vl-7b.json"
    (folder / "config.json").write_text(json.dumps(json.loads(recipe.read_text())["config"]))
    processor = {"min_pixels": 3136, "max_pixels": 784_000}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return Checkpoint(folder, "f" * 16, "qwen2_5_vl", Labels("seven", "base", "none"))


def test_pictures_are_counted_by_their_size_and_the_processors_limits(
    tmp_path: Path, model: Checkpoint
) -> None:
    parts = []
    for name, size in (("a", (280, 280)), ("b", (2800, 2800)), ("c", (14, 14))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
        parts.append({"type": "image", "path": f"{name}.png"})
    asked = BenchmarkQuestion("MMStar", "0", "0", "A", None, tuple(parts))
    prompts = cast("PromptSet", SimpleNamespace(folder=tmp_path, questions=[asked]))

    def tokens(pixels: Pixels, of: Checkpoint | None) -> int:
        return picture_tokens(prompts, pixels, of)[asked.key]

    assert tokens(AS_IS, None) == 100 + 10_000 + 0
    assert tokens(AS_IS, model) == 100 + 999 + 4
    assert tokens(Pixels(most=39_200), model) == 49 + 49 + 4
    (model.path / "preprocessor_config.json").write_text('{"crop_to_patches": true}')
    internvl = replace(model, model_type="internvl")
    assert tokens(AS_IS, internvl) == 3 * 13 * 256
    (model.path / "preprocessor_config.json").write_text("{}")
    assert tokens(AS_IS, internvl) == 3 * 256


def test_servers_time_disk_and_existing_responses(tmp_path: Path, model: Checkpoint) -> None:
    (tmp_path / "RealWorldQA.tsv").write_bytes(b"x" * 10**8)
    one = Estimate("RWQA", 765, 765, 765, 765 * 2000, 765 * 100, 0, 0, 300)

    def lines(stored: Any = None, **changes: Any) -> list[str]:
        chosen: dict[str, Any] = {"device": "cuda", "vllm": Path("python"), "gpus": 8}
        options = EvalOptions(
            "paper",
            tmp_path,
            tmp_path / "work",
            **{**chosen, "gpu_gib": 80.0, "benchmarks": ("RWQA",), **changes},
        )
        return dry_run_lines(options, [one], [model], stored or {})

    server, time, disk = lines()
    assert server.startswith("server of seven: on 8 GPUs, up within 30 min: python -m vllm")
    assert "--data-parallel-size 8" in server
    assert time.startswith("seven: about ")
    assert "on 8 of GPU, by arithmetic, not measured (200 tokens a response)" in time
    assert disk.startswith("disk: about 0.2 GB in ")
    with open_answers(one_file(tmp_path / "a.jsonl")) as answers:
        answers.append_all({("MMStar", "0"): Completion("A", "stop", 9, 1, 2.0)})
        stored = {str(model.path): (answers, 256)}
        exist, _, time, _ = lines(stored)
    assert exist == f"{model.path}: 509 of 765 responses exist"
    assert time == "seven: about 2 s, by its responses so far (2.0 s each)"
    asked, time, _ = lines(endpoint="http://h/v1", vllm=None)
    assert asked == "asked at http://h/v1; no server is started"
    assert time == "seven: the time is not known before the first responses"


def test_nothing_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data file, no kit, no folder: the published numbers count."""
    monkeypatch.setenv("RILBENCH_KITS", str(tmp_path / "kits"))
    options = EvalOptions(
        "paper", tmp_path / "LMUData", tmp_path / "work", benchmarks=("RWQA", "MMStar"), limit=1000
    )
    seen = preview(options)
    assert (seen.prompts, seen.stored) == (None, {})
    assert seen.absent == {"MMStar": 1000, "RealWorldQA": 765}
    assert not list(tmp_path.iterdir())
