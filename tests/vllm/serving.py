"""The real vLLM, on a CPU, in an environment of its own: ``make test-vllm``."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rilbench.evaluate.options import EvalOptions
from rilbench.evaluate.run import evaluate
from rilbench.ledger import Evaluation
from rilbench.paths import locate, nano_folder
from rilbench.serving import Server, serve

ROOT = Path(__file__).parents[2]
VLLM = Path(os.environ.get("VLLM_PYTHON", ROOT / ".venv-vllm" / "bin" / "python"))
OUT = ROOT / "results" / "bench" / "vllm.json"
MODEL = locate("nano:restyled")
WITHIN = 180.0  # seconds: all 14 benchmarks, on two cores, from the start of the command


@pytest.fixture(scope="module", autouse=True)
def settings() -> Iterator[None]:
    """vLLM takes the memory for its cache from a variable."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        yield


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("vllm") / "log"
    with serve(MODEL, log=log, timeout=600, vllm=VLLM) as running:
        yield running


def responses(found: Evaluation) -> dict[tuple[str, str], str]:
    return {(s.benchmark, s.question_id): s.response for s in found.samples}


@pytest.mark.timeout(1200)
def test_its_answers_are_those_of_transformers(server: Server, tmp_path: Path) -> None:
    data, columns = nano_folder() / "benchmarks", ("MMStar", "BLINK", "MMMU")
    there = EvalOptions(
        "nano",
        data,
        tmp_path / "vllm",
        endpoint=f"{server.model}@{server.base_url}",
        benchmarks=columns,
    )
    here = EvalOptions("nano", data, tmp_path / "batch", engine="batch", benchmarks=columns)
    first, second = responses(evaluate(MODEL, there)), responses(evaluate(MODEL, here))
    assert len(first) == 300
    assert first.keys() == second.keys()
    same = sum(first[key] == second[key] for key in first)
    assert same >= 297, "greedy, but for ties in the last digit"


@pytest.mark.timeout(1200)
def test_the_whole_suite_cold(tmp_path: Path) -> None:
    """The start of vLLM and of the kit counts."""
    plan = EvalOptions("nano", nano_folder() / "benchmarks", tmp_path / "work", vllm=VLLM)
    started = time.monotonic()
    found = evaluate(MODEL, plan)
    seconds = time.monotonic() - started
    result = {"command": "make test-vllm", "all 14, cold, seconds": round(seconds, 1)}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    assert len(found.scores) == 14
    assert not any(score.missing for score in found.scores)
    assert seconds < WITHIN
