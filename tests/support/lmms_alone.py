"""lmms-eval by itself: its own evaluator on given answers, with nothing of rilbench.

Runs under the kit's Python: ``lmms_alone.py DATA TASK,… ANSWERS OUT [FOLDER]``. DATA is laid out
as the hub; ANSWERS is {task: {row of the data: text}}, of a group of tasks {sub-task: …}, or what
the kit needs for its client of a server (``base_url=…``); OUT gets the kit's results, FOLDER what
it writes with ``--output_path FOLDER --log_samples``. The one thing that is not the kit's: its data
sets are read from DATA.
"""

import json
import os
import sys
import types
from pathlib import Path

import datasets

DATA = Path(sys.argv[1])
_load = datasets.load_dataset


def local(path, name=None, **_):
    """The same data set from DATA."""
    folder = DATA / path / (name or "")
    files = {file.name.split("-")[0]: str(file) for file in folder.glob("*.parquet")}
    return _load("parquet", data_files=files, cache_dir=os.environ["CACHE"])


datasets.load_dataset = local

from lmms_eval.api.model import lmms  # noqa: E402  After the patch.
from lmms_eval.evaluator import simple_evaluate  # noqa: E402
from lmms_eval.loggers import EvaluationTracker  # noqa: E402
from lmms_eval.utils import get_datetime_str  # noqa: E402


class Given(lmms):
    """Answers by looking up."""

    is_simple = False

    def generate_until(self, requests):
        """Every answer, in order."""
        answers = json.loads(Path(sys.argv[3]).read_text())
        return [answers[r.args[4]][str(r.args[3])] for r in requests]

    def loglikelihood(self, requests):
        """Of no task here."""
        raise NotImplementedError

    generate_until_multi_round = loglikelihood


named = dict.fromkeys(("log_samples_suffix", "wandb_args", "model", "model_args", "tasks"))
asks = sys.argv[3].startswith("base_url=")
folder = sys.argv[5] if len(sys.argv) > 5 else None
tracker = EvaluationTracker(output_path=folder) if folder else None
out = simple_evaluate(
    model="openai" if asks else Given(),
    model_args=sys.argv[3] if asks else "pretrained=lab/tiny" if folder else None,
    evaluation_tracker=tracker,
    tasks=sys.argv[2].split(","),
    batch_size=1,
    device="cpu",
    bootstrap_iters=0,
    verbosity="ERROR",
    cli_args=types.SimpleNamespace(output_path=".", process_with_media=False, **named),
)
Path(sys.argv[4]).write_text(json.dumps(out["results"], default=str))
if tracker:  # As the kit's own command does.
    samples = out.pop("samples")
    when = get_datetime_str()
    tracker.save_results_aggregated(results=out, samples=samples, datetime_str=when)
    for name in out["configs"]:
        tracker.save_results_samples(task_name=name, samples=samples[name])
