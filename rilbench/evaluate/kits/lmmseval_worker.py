"""lmms-eval's worker: runs under the kit's Python, where rilbench is not installed.

Two jobs, each a JSON object, files in and files out, as in `vlmevalkit_worker`:

``prompts``  {"folder", "data", "datasets", "limit"}
    Writes ``folder/questions.jsonl``, one line {"dataset", "question_id", "group", "truth",
    "category", "question", "parts", "problem", "max_tokens"} per question; image paths in it are
    relative to ``folder``. ``max_tokens`` is the longest response that the task allows. Tasks that
    are to be ``tried`` are, as in `vlmevalkit_worker`, on a few questions.
``score``    {"folder", "data", "datasets", "limit", "answers", "out", "judge"}
    ``answers`` is a JSON file {dataset: {question_id: text}}; ``out`` a fresh folder; ``judge`` is
    {"url", "name", "reads"}. Writes ``out/result.json``: per dataset the kit's total and for each
    question its outcome, 0-1 or null for a missing verdict, the answer that the kit read from the
    text, whether the judge took part, the group that it counts in where the total is a mean of
    means, and ``unread``, as in `vlmevalkit_worker`.

The kit's own evaluator runs in both, with a stand-in for the model: the first only writes down what
it is asked, the second looks its answers up. ``data`` is a folder of Parquet files laid out as on
the hub, ``data/ORG/NAME[/CONFIG]/SPLIT*.parquet``; what it lacks comes from the hub.
A dataset is {"name", "metric", "judging", "circular", "parts", "only", "tried"}, see
`rilbench.evaluate.suite`. The judge's address is in the environment when the worker starts, as the
kit's modules read it when they are imported. Jobs come as in `vlmevalkit_worker`.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import tempfile
import time
import types
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rilbench.evaluate.kits import lmmseval_data as data
    from rilbench.evaluate.kits.lmmseval_patches import patches
    from rilbench.evaluate.kits.worker_common import (
        JUDGE_THREADS,
        UNREADABLE,
        JobError,
        gold,
        question_of_rotation,
        tried,
        why,
        work,
    )
else:
    import lmmseval_data as data
    from lmmseval_patches import patches
    from worker_common import (
        JUDGE_THREADS,
        UNREADABLE,
        JobError,
        gold,
        question_of_rotation,
        tried,
        why,
        work,
    )

data.install()
source, pictures = data.source, data.pictures

STRATA = {"mmstar": "l2_category"}  # datasets whose total is the mean of the groups' means
READ = ("extraction", "parsed_pred", "pred_parsed", "pred")
"""The tasks' names for the answer that they read from a text."""
DEFAULT_TOKENS = 1024
"""Length of a response in the kit's own client of a server, where the task sets none."""
LETTER = re.compile(r"\(([A-Z])\)")
GOLD, ONE_LETTER = re.compile(r"\(?([A-Z])\)?"), re.compile(r"\W*[A-Za-z]\W*")
LETTERS = "ABCDEFGHIJ"
"""Of the most options that a task has; few tasks say how many a question has."""
NO_TOTAL = object()
TRIALS, FEW = "trials.json", 8
"""The file of the trials, and the questions of each: the kit's evaluator is slow to start."""


class AllWrittenError(Exception):
    """The questions are written, and the kit need not go on to score."""


# ---- the kit's evaluator

Answer = Callable[[Any, Any, int, Any], str]
"""Task, its questions, the number of one, and the request's settings, to the response."""


def stand_in(answer: Answer, tasks: dict[str, Any], scoring: bool) -> Any:
    """Return a model for the kit that answers by a function and notes its tasks by name."""
    from lmms_eval.api.model import lmms

    class StandIn(lmms):  # type: ignore[misc]
        is_simple = False

        def generate_until(self, requests: list[Any]) -> list[str]:
            answers = []
            for request in requests:
                _, to_messages, settings, number, name, split = request.args
                task = tasks.setdefault(name, to_messages.__self__)
                patches.patch_task(task)
                answers.append(answer(task, self.task_dict[name][split], number, settings))
            if not scoring:
                raise AllWrittenError
            return answers

        def loglikelihood(self, requests: list[Any]) -> Any:
            raise JobError("a task asks for likelihoods, which a served model does not give")

        def generate_until_multi_round(self, requests: list[Any]) -> Any:
            raise JobError("a task asks in several rounds, which is not supported")

    return StandIn()


@cache
def task_manager() -> Any:
    """Return the kit's list of all tasks, which takes seconds to read."""
    from lmms_eval.tasks import TaskManager

    return TaskManager("WARNING")


@cache
def evaluator() -> Any:
    """Return the kit's evaluator, whose tasks have as many rows as the job's limit allows."""
    from lmms_eval import evaluator

    load = evaluator.get_task_dict
    evaluator.get_task_dict = lambda *given, **more: source.limited(load(*given, **more))
    return evaluator


def evaluate(
    job: dict[str, Any], spec: dict[str, Any], answer: Answer, *, scoring: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run the kit's evaluator on one dataset; return its result, and its tasks by name.

    Raises:
        AllWrittenError: all requests are answered, and nothing is to be scored.
    """
    from tenacity import RetryError

    if spec["name"] not in task_manager().all_tasks:
        raise JobError(
            f"lmms-eval has no task {spec['name']}; it asks its own tasks only, so use VLMEvalKit "
            "for a data set that it does not know"
        )
    tasks: dict[str, Any] = {}
    unused = dict.fromkeys(("log_samples_suffix", "wandb_args", "model", "model_args", "tasks"))
    source.open(job, spec)
    pictures.needed = not scoring
    try:
        result: dict[str, Any] = evaluator().simple_evaluate(
            model=stand_in(answer, tasks, scoring),
            tasks=[spec["name"]],
            task_manager=task_manager(),
            batch_size=1,
            device="cpu",
            log_samples=True,
            bootstrap_iters=0,
            verbosity="ERROR",
            cli_args=types.SimpleNamespace(
                output_path=job.get("out") or job["folder"], process_with_media=False, **unused
            ),
            process_docs_parallel=JUDGE_THREADS,
        )
    except RetryError as error:  # the kit tries to load five times
        raise error.last_attempt.exception() or error from error
    return result, tasks


# ---- prompts


def write_prompts(job: dict[str, Any]) -> None:
    """Do a ``prompts`` job."""
    folder, trials = Path(job["folder"]), {}
    with (folder / "questions.jsonl").open("w", encoding="utf-8") as sink:
        for spec in job["datasets"]:
            lines = questions(job, spec, folder)
            for line in lines:
                sink.write(json.dumps(line, ensure_ascii=False) + "\n")
            # Circular questions have a verdict only together.
            if spec["tried"] and not spec["circular"] and spec["judging"] != "grader":
                golds = {line["question_id"]: gold(line["truth"]) for line in lines}
                trials[spec["name"]] = try_scoring(job, spec, golds)
    (folder / TRIALS).write_text(json.dumps(trials), encoding="utf-8")
    shutil.rmtree(folder / "cache", ignore_errors=True)


def try_scoring(
    job: dict[str, Any], spec: dict[str, Any], golds: dict[str, str]
) -> list[dict[str, Any]]:
    """Let the kit score right and wrong answers to a few questions, before a model is asked.

    Raises:
        JobError: it cannot.
    """
    before = Path.cwd()
    working = tempfile.mkdtemp(prefix="rilbench-trial-")
    few = {**job, "limit": min(job["limit"] or FEW, FEW), "out": working}
    names: list[str] = []

    def note(task: Any, _: Any, number: int, __: Any) -> str:
        names.append(source.question_id(task, number))
        return ""

    try:
        os.chdir(working)  # some tasks write files into the current folder
        install_patches({"reads": False})
        with suppress(AllWrittenError):
            evaluate(few, spec, note, scoring=False)
        few_golds = {name: golds[name] for name in names}
        return tried(spec["name"], few_golds, lambda answers: score_dataset(few, spec, answers))
    except JobError:
        raise
    except Exception as error:  # the kit's code for any of its tasks may raise anything
        raise JobError(
            f"{spec['name']}: lmms-eval's {spec['metric']} cannot be read for single questions "
            f"({why(error)}); name another metric of it in a TOML file, or evaluate another task"
        ) from error
    finally:
        os.chdir(before)
        shutil.rmtree(working, ignore_errors=True)


def install_patches(judge: dict[str, Any]) -> None:
    """Wrap the kit's functions for judged tasks, once, and say which judge is asked."""
    if not patches.judge:
        patches.install()
    patches.judge = judge


def questions(job: dict[str, Any], spec: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Return the lines of one dataset, which may be several of the kit's tasks."""
    lines: list[dict[str, Any]] = []

    def note(task: Any, docs: Any, number: int, settings: Any) -> str:
        name = source.question_id(task, number)
        pictures.begin()
        doc = docs[number]
        group = question_of_rotation(doc["index"]) if spec["circular"] else name
        target = plain_text(task.doc_to_target(doc))
        line = {
            "dataset": spec["name"],
            "question_id": name,
            "group": group,
            "truth": letter[1] if (letter := LETTER.fullmatch(target)) else target,
            "category": category(doc, spec, str(task.config.task)),
            "question": str(doc.get("question", "")),
            "max_tokens": settings.get("max_new_tokens", DEFAULT_TOKENS),
        }
        problem = pictures.problem if pictures.count else "it has no picture"
        made = prompt(task, doc, folder, f"{spec['name']}/{name}") if problem is None else {}
        lines.append({**line, "parts": [], "problem": problem, **made})
        return ""

    with suppress(AllWrittenError):
        evaluate(job, spec, note, scoring=False)
    return lines


def category(doc: Any, spec: dict[str, Any], task: str) -> str | None:
    """Return a question's category: of its data, else its task in a group of several."""
    value = {**(doc.get("metadata") or {}), **doc}.get(spec["category"])
    if value is None:
        return task.removeprefix(f"{spec['name']}_") if spec["parts"] > 1 else None
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def prompt(task: Any, doc: Any, folder: Path, name: str) -> dict[str, Any]:
    """Return the parts of the kit's messages, pictures as PNG files; or the problem."""
    parts: list[dict[str, str]] = []
    try:
        for message in task.doc_to_messages(doc):
            for part in message["content"]:
                if part["type"] == "text":
                    parts.append({"type": "text", "text": part["text"]})
                elif part["type"] == "image":
                    file = Path("images") / f"{name}_{len(parts)}.png"
                    (folder / file).parent.mkdir(parents=True, exist_ok=True)
                    part["url"].convert("RGB").save(folder / file)
                    parts.append({"type": "image", "path": str(file)})
                else:
                    raise JobError(f"a prompt has a part of type {part['type']}")
    except UNREADABLE as error:
        return {"parts": [], "problem": f"the kit makes no prompt of it ({why(error)})"}
    return {"parts": parts, "problem": None}


# ---- scores


def score(job: dict[str, Any]) -> None:
    """Do a ``score`` job."""
    answers = json.loads(Path(job["answers"]).read_text(encoding="utf-8"))
    out = Path(job["out"])
    os.chdir(out)  # some tasks write files into the current folder
    install_patches(job["judge"])
    result = {}
    for spec in job["datasets"]:
        start = time.monotonic()
        scored = score_dataset(job, spec, answers[spec["name"]])
        result[spec["name"]] = {**scored, "seconds": time.monotonic() - start}
    shutil.rmtree(out / "cache", ignore_errors=True)
    text = json.dumps({"kit": f"lmms-eval {version('lmms-eval')}", "datasets": result})
    (out / "result.json").write_text(text, encoding="utf-8")


def score_dataset(
    job: dict[str, Any], spec: dict[str, Any], answers: dict[str, str]
) -> dict[str, Any]:
    """Return one dataset's score: the kit's total and the questions' outcomes."""
    patches.circular = {}
    names: dict[tuple[str, int], str] = {}

    def look_up(task: Any, _: Any, number: int, __: Any) -> str:
        name = source.question_id(task, number)
        names[str(task.config.task), number] = name
        return answers[name]

    result, tasks = evaluate(job, spec, look_up, scoring=True)
    key = spec["metric"] if "," in spec["metric"] else f"{spec['metric']},none"
    total = result["results"][spec["name"]].get(key, NO_TOTAL)
    if total is NO_TOTAL:
        raise JobError(f"{spec['name']}: the kit's result has no {key}")
    if spec["circular"]:
        questions = [{"question_id": q, **found} for q, found in patches.circular.items()]
        return {"total": total, "questions": questions}
    questions = []
    for task, samples in result["samples"].items():
        for sample in samples:
            name = names[task, sample["doc_id"]]
            scored = outcome(tasks[task], sample, spec, name, answers[name])
            question = {"question_id": name, **scored}
            if spec["parts"] > 1:
                # The kit's total of several tasks is the mean of their means, whatever their sizes.
                question["stratum"] = task
            questions.append(question)
    # MathVista's total is None where no answer is right; elsewhere it is no number to read as 0.
    if total is None and any(question["outcome"] for question in questions):
        raise JobError(f"{spec['name']}: the kit's {key} has no value")
    return {"total": 0.0 if total is None else total, "questions": questions}


def outcome(
    task: Any, sample: dict[str, Any], spec: dict[str, Any], name: str, answer: str
) -> dict[str, Any]:
    """Return the kit's score of the answer to the question ``name``."""
    metric = spec["metric"].split(",")[0]
    value, graded = sample[metric], spec["judging"] == "grader"
    fields = value if isinstance(value, dict) else {}
    read = next((fields[name] for name in READ if name in fields), sample["filtered_resps"])
    score: float | None
    if "score" in fields or "true_false" in fields:
        score = float(fields["score"] if "score" in fields else fields["true_false"])
    elif fields:
        score = float(task.aggregation()[metric]([copy.deepcopy(value)]))
    else:
        score = float(value)
    # These fields are empty where the judge's reply could not be understood.
    if graded and (fields.get("eval_model") == "" or (fields.get("extraction") == "" and answer)):
        score = None
    found: dict[str, Any] = {
        "outcome": score,
        "extracted": plain_text(read),
        "judged": graded,
        "stratum": str(fields.get(STRATA.get(spec["name"], ""), "")),
    }
    gold = GOLD.fullmatch(plain_text(sample["target"]))
    if gold and score == 0 and not graded and not ONE_LETTER.fullmatch(found["extracted"]):
        choice = {"options": LETTERS, "gold": gold[1], "read": ""}
        found["unread"] = [{"question_id": name, **choice}]
    return found


def plain_text(value: Any) -> str:
    """Return a text, or the only one of a list."""
    while isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    return str(value)


def import_kit() -> None:
    """Import the kit, which takes long, before the first job."""
    evaluator()
    task_manager()


if __name__ == "__main__":
    work({"prompts": write_prompts, "score": score}, import_kit)
