"""With GPUs and no addresses, a run starts its teachers in turn; a stand-in has vLLM's command."""

import json

import pyarrow.parquet as pq
from collected import Notes
from stand_in_vllm import install

from rilbench.config import load_recipe
from rilbench.data.question_files import Question
from rilbench.train.pipeline.collect_stage import collect_all, teacher_collections
from rilbench.train.pipeline.run_folder import Run

QUESTIONS = [Question(f"q{i}", (b"\x89PNG",), f"{i}?", "yes", "test") for i in range(4)]


def test_teachers_are_started_one_after_the_other(tmp_path, monkeypatch):
    install(tmp_path / "installed")
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "installed"))
    settings = ["collection.serve.72b=--max-model-len 99", "collection.fields.78b={seed: 0}"]
    run = Run(tmp_path / "run", load_recipe("both", "nano", None, settings, "1x8-80gb"))
    notes = Notes()
    collect_all(run, teacher_collections(run), QUESTIONS, notes)

    told = {
        name: [json.loads(line) for line in log.read_text().splitlines()]
        for name in ("72b", "78b")
        for log in [run.folder / "logs" / f"serve-{name}.log"]
    }
    for name, requests in told.items():
        assert len(requests) == 1 + 16, "the first tells that it is up"
        assert len(pq.read_table(run.collection / f"{name}.parquet")) == 16
        arguments = requests[0]["arguments"]
        assert (arguments["tensor_parallel_size"], arguments["data_parallel_size"]) == (1, 8)
        assert (arguments["generation_config"], arguments["dtype"]) == ("vllm", "auto")
    assert told["72b"][0]["arguments"]["max_model_len"] == "99"
    assert told["78b"][0]["arguments"]["max_model_len"] is None
    assert max(r["at"] for r in told["72b"]) < min(r["at"] for r in told["78b"])
    common = ["max_tokens", "messages", "model", "seed"]
    assert told["78b"][-1]["fields"] == common
    sampled = [*common, "repetition_penalty", "temperature", "top_k", "top_p"]
    assert told["72b"][-1]["fields"] == sorted(sampled)
    assert [note.split(" loads ")[0] for note in notes.said] == ["72b: vLLM", "78b: vLLM"]
