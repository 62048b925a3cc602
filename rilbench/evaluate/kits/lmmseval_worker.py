"""lmms-eval's worker: runs under the kit's Python, where rilbench is not installed.

Two jobs, each a JSON object, files in and files out, as `vlmevalkit_worker` has them:

``prompts``  {"folder", "data", "datasets", "limit"}
    Writes ``folder/questions.jsonl``, one line {"dataset", "question_id", "group", "truth",
    "category", "question", "parts", "problem", "max_tokens"} per question; image paths in it are
    relative to ``folder``. ``max_tokens`` is the longest answer that the task allows.
``score``    {"folder", "data", "datasets", "limit", "answers", "out", "judge"}
    ``answers`` is a JSON file {dataset: {question_id: text}}; ``out`` a fresh folder; ``judge`` is
    {"url", "name", "reads"}. Writes ``out/result.json``: per dataset the kit's total and for each
    question its outcome, 0-1 or null for a missing verdict, the answer that the kit read from the
    text, whether the judge took part, and the group that it counts in where the total is a mean of
    means.

The kit's own evaluator runs in both: a model that only writes down what it is asked stands in for
the first, one that looks its answers up for the second. ``data`` is a folder of Parquet files laid
out as on the hub, ``data/ORG/NAME[/CONFIG]/SPLIT*.parquet``; what is not there comes from the hub.
A dataset is {"name", "metric", "judging", "circular", "parts", "only"}, see
`rilbench.evaluate.suite`. The judge's address is in the environment when the worker starts, as the
kit's modules read it when they are imported. Jobs come as in `vlmevalkit_worker`.
"""

import copy
import hashlib
import json
import os
import re
import shutil
import sys
import time
import types
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partialmethod
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets

JUDGE_THREADS = 32
GUESSED = "Failed to predict"
STRATA = {"mmstar": "l2_category"}  # Where the kit takes the mean of the groups' means.
READ = ("extraction", "parsed_pred", "pred_parsed", "pred")
"""What the tasks call the answer that they read from a text."""
DEFAULT_TOKENS = 1024
"""The longest answer of the kit's own client of a server, where the task sets none."""
LETTER = re.compile(r"\(([A-Z])\)")
MILLION = 1_000_000
NO_TOTAL = object()


class JobError(Exception):
    """Something in the job that the user can mend."""


class AllWrittenError(Exception):
    """The questions are written; the kit need not go on to score."""


class NoDice:
    """In the place of ``random``: where the kit would guess an option, one that is never right."""

    @staticmethod
    def choice(_: object) -> str:
        """Return no option."""
        return "?"

    @staticmethod
    def randint(_: int, last: int) -> int:
        """Return the last one: MMBench's "none of them"."""
        return last

    @staticmethod
    def seed(_: object) -> None:
        """Do nothing."""


class Hurry:
    """In the place of ``time``: what stands before the judge has waited and tried again."""

    time, perf_counter = staticmethod(time.time), staticmethod(time.perf_counter)

    @staticmethod
    def sleep(_: float) -> None:
        """Return at once."""


# ---- the data


class Source:
    """Where the dataset in hand is read from, and which of its rows are asked."""

    def __init__(self) -> None:
        self.load = datasets.load_dataset
        self.job: dict[str, Any] = {}
        self.spec: dict[str, Any] = {}
        self.kept: dict[str, list[int]] = {}
        """Rows that are asked: of each name of a configuration, in their order."""

    def __call__(self, path: str, name: str | None = None, *rest: Any, **settings: Any) -> Any:
        """Load a dataset from the job's folder if it is there, else as the kit does."""
        folder = Path(self.job["data"]) / path / (name or "")
        # Split by split: given a folder, datasets renames the splits val and dev.
        files: dict[str, list[str]] = {}
        for file in sorted(folder.glob("*.parquet")):
            split = file.name.split("-")[0].removesuffix(".parquet")
            files.setdefault(split, []).append(str(file))
        if files:
            cache = str(Path(self.job.get("out") or self.job["folder"]) / "cache")
            found = self.load("parquet", data_files=files, cache_dir=cache)
        else:
            try:
                found = self.load(path, name, *rest, **settings)
            except Exception as error:  # Whatever the hub's client raises.
                why = f"{type(error).__name__}: {error}".splitlines()[0]
                raise JobError(
                    f"{folder} has no Parquet files, and the hub cannot be asked ({why}); copy "
                    "the dataset there, or give the folder that has it with --data"
                ) from error
        return type(found)({split: self.pick(rows, name or "") for split, rows in found.items()})

    def pick(self, rows: Any, name: str) -> Any:
        """The rows that are asked."""
        indices = list(range(len(rows)))
        if self.spec["only"] is not None and self.spec["only"][0] in rows.column_names:
            column, wanted = self.spec["only"]
            values = rows[column]
            indices = [i for i in indices if values[i] == wanted]
        if self.job["limit"] is not None:
            numbers = list(rows["index"]) if self.spec["circular"] else range(len(rows))
            groups = {i: str(numbers[i] % MILLION) for i in indices}
            limit = -(-self.job["limit"] // self.spec["parts"])
            asked = sample(f"{self.spec['name']}/{name}", set(groups.values()), limit)
            indices = [i for i in indices if groups[i] in asked]
        self.kept[f"{name}/{rows.split}"] = indices
        return rows if len(indices) == len(rows) else rows.select(indices)

    def question_id(self, task: Any, number: int, doc: Any) -> str:
        """A question's name, whatever the limit: its row, or the benchmark's own index."""
        if self.spec["circular"]:
            return str(doc["index"])
        row = self.kept[f"{task.config.dataset_name or ''}/{task.config.test_split}"][number]
        part = str(task.config.task).removeprefix(f"{self.spec['name']}_")
        return str(row) if self.spec["parts"] == 1 else f"{part}/{row}"


source = Source()
datasets.load_dataset = source


def sample(name: str, groups: set[str], limit: int) -> set[str]:
    """All groups, or ``limit`` of them: always the same, and spread over the file."""
    return set(
        sorted(groups, key=lambda g: hashlib.sha256(f"{name}/{g}".encode()).digest())[:limit]
    )


# ---- the kit's evaluator

Answer = Callable[[Any, Any, int, Any], str]
"""From the task, its questions, the number of one, and the request's settings."""


def stand_in(answer: Answer, tasks: dict[str, Any], scoring: bool) -> Any:
    """A model of the kit's kind that answers by a function and notes its tasks by name."""
    from lmms_eval.api.model import lmms

    class StandIn(lmms):  # type: ignore[misc]
        is_simple = False

        def generate_until(self, requests: list[Any]) -> list[str]:
            answers = []
            for request in requests:
                _, to_messages, settings, number, name, split = request.args
                task = tasks.setdefault(name, to_messages.__self__)
                watch.meet(task)
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
    """The kit's list of all tasks, which takes seconds to read."""
    from lmms_eval.tasks import TaskManager

    return TaskManager("WARNING")


def evaluate(
    job: dict[str, Any], spec: dict[str, Any], answer: Answer, *, scoring: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run the kit's evaluator on one dataset: what it returns, and its tasks by name.

    Raises:
        AllWrittenError: all requests are answered, and nothing is to be scored.
    """
    from lmms_eval.evaluator import simple_evaluate
    from tenacity import RetryError

    tasks: dict[str, Any] = {}
    place = job.get("out") or job["folder"]
    named = dict.fromkeys(("log_samples_suffix", "wandb_args", "model", "model_args", "tasks"))
    source.job, source.spec = job, spec
    try:
        found: dict[str, Any] = simple_evaluate(
            model=stand_in(answer, tasks, scoring),
            tasks=[spec["name"]],
            task_manager=task_manager(),
            batch_size=1,
            device="cpu",
            log_samples=True,
            bootstrap_iters=0,
            verbosity="ERROR",
            cli_args=types.SimpleNamespace(output_path=place, process_with_media=False, **named),
            process_docs_parallel=JUDGE_THREADS,
        )
    except RetryError as error:  # The kit tries to load five times.
        raise error.last_attempt.exception() or error from error
    return found, tasks


# ---- prompts


def write_prompts(job: dict[str, Any]) -> None:
    """Do a ``prompts`` job."""
    folder = Path(job["folder"])
    with (folder / "questions.jsonl").open("w", encoding="utf-8") as sink:
        for spec in job["datasets"]:
            for line in questions(job, spec, folder):
                sink.write(json.dumps(line, ensure_ascii=False) + "\n")
    shutil.rmtree(folder / "cache", ignore_errors=True)


def questions(job: dict[str, Any], spec: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """The lines of one dataset, which may be several of the kit's tasks."""
    lines: list[dict[str, Any]] = []

    def note(task: Any, docs: Any, number: int, settings: Any) -> str:
        doc = docs[number]
        name = source.question_id(task, number, doc)
        group = str(doc["index"] % MILLION) if spec["circular"] else name
        target = plain_text(task.doc_to_target(doc))
        line = {
            "dataset": spec["name"],
            "question_id": name,
            "group": group,
            "truth": letter[1] if (letter := LETTER.fullmatch(target)) else target,
            "category": None,
            "question": str(doc.get("question", "")),
            "max_tokens": settings.get("max_new_tokens", DEFAULT_TOKENS),
        }
        lines.append({**line, **prompt(task, doc, folder, f"{spec['name']}/{name}")})
        return ""

    with suppress(AllWrittenError):
        evaluate(job, spec, note, scoring=False)
    return lines


def prompt(task: Any, doc: Any, folder: Path, name: str) -> dict[str, Any]:
    """The parts of the kit's messages, pictures as PNG files; none where one cannot be read."""
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
    except (OSError, ValueError, SyntaxError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}".rstrip(": ").splitlines()[0]
        return {"parts": [], "problem": f"its picture cannot be read ({why})"}
    return {"parts": parts, "problem": None}


# ---- scores


class Watch:
    """What the kit's code for judged tasks does, seen and put right while it runs.

    The kit counts a question as wrong when its judge fails, or guesses an option; here such a
    verdict is known to be missing.
    """

    def __init__(self) -> None:
        self.judge: dict[str, Any] = {}
        self.circular: dict[str, dict[str, Any]] = {}
        """Of each circular question: its outcome, what was read, and whether a judge was asked."""
        self._asked: list[str] = []

    def install(self) -> None:
        """Wrap the functions that tasks share; once for a process."""
        from lmms_eval.llm_judge.providers import openai
        from lmms_eval.tasks._task_utils import mmmu_mcq_utils
        from lmms_eval.tasks.mathvista import mathvista_evals
        from lmms_eval.tasks.mmbench import mmbench_evals

        mmmu_mcq_utils.random = mmbench_evals.rd = NoDice
        for module in (openai, mathvista_evals, mmbench_evals):
            module.time = Hurry
        kind = mathvista_evals.MathVistaEvaluator
        kind.server.client.max_retries = 0
        kind.get_chat_response = partialmethod(kind.get_chat_response, patience=1)
        provider = openai.OpenAIProvider
        provider.evaluate = self.once(provider.evaluate)
        kind = mmbench_evals.MMBench_Evaluator
        kind.get_chat_response = partialmethod(kind.get_chat_response, patience=1)
        kind.extract_answer_from_item = self.extract(kind.extract_answer_from_item)
        kind.eval_sub_data = self.rotations(kind.eval_sub_data)

    def meet(self, task: Any) -> None:
        """Wrap what a task has in a module of its own, which the kit loads by its path."""
        own = getattr(task.config.process_results, "__globals__", {})
        if "get_chat_response" in own and own["time"] is not Hurry:
            own["time"] = Hurry
            own["get_chat_response"] = self.grade(own["get_chat_response"])
            own["server"].client.max_retries = 0

    def once(self, original: Any) -> Any:
        """The kit's request to a judge, not repeated: the proxy does that."""

        def evaluate(provider: Any, request: Any) -> Any:
            (request.config or provider.config).num_retries = 1
            return original(provider, request)

        return evaluate

    def grade(self, original: Any) -> Any:
        """MM-Vet's question to its judge: a reply that is no grade is a 0 from nobody.

        The kit asks for ever when a judge gives a grade above 1, and cannot name a question of
        version 2 that gets none.
        """

        def ask(prompt: str, temperature: float = 0.0, **_: Any) -> tuple[str, str]:
            reply, model = original(prompt, temperature=temperature, patience=1)
            with suppress(ValueError, IndexError):
                if 0 <= float(reply.split(" ")[0].strip()) <= 1:
                    return reply, model
            return "0", ""

        return ask

    def extract(self, original: Any) -> Any:
        """MMBench's question to its judge, which is not asked when it reads nothing."""

        def ask(evaluator: Any, item: Any) -> Any:
            if not self.judge["reads"]:
                return "?", ""
            found = original(evaluator, item)
            self._asked.append(str(found[1]))
            return found

        return ask

    def rotations(self, original: Any) -> Any:
        """MMBench's verdict on all rotations of a question."""

        def score(evaluator: Any, rows: Any, *rest: Any, **settings: Any) -> Any:
            self._asked = []
            hit = original(evaluator, rows, *rest, **settings)
            items = [rows.iloc[i] for i in range(len(rows))]
            self.circular[str(int(items[0]["index"]) % MILLION)] = {
                "outcome": None if any(GUESSED in log for log in self._asked) else float(hit),
                "extracted": ",".join(evaluator.prefetch_answer(item) or "-" for item in items),
                "judged": bool(self._asked),
            }
            return hit

        return score


watch = Watch()


def score(job: dict[str, Any]) -> None:
    """Do a ``score`` job."""
    answers = json.loads(Path(job["answers"]).read_text(encoding="utf-8"))
    out = Path(job["out"])
    os.chdir(out)  # Some tasks write files where they are.
    if not watch.judge:
        watch.install()
    watch.judge = job["judge"]
    result = {}
    for spec in job["datasets"]:
        start = time.monotonic()
        found = score_dataset(job, spec, answers[spec["name"]])
        result[spec["name"]] = {**found, "seconds": time.monotonic() - start}
    shutil.rmtree(out / "cache", ignore_errors=True)
    text = json.dumps({"kit": f"lmms-eval {version('lmms-eval')}", "datasets": result})
    (out / "result.json").write_text(text, encoding="utf-8")


def score_dataset(
    job: dict[str, Any], spec: dict[str, Any], answers: dict[str, str]
) -> dict[str, Any]:
    """Score one dataset: the kit's total and the questions' outcomes."""
    watch.circular = {}
    names: dict[tuple[str, int], str] = {}

    def look_up(task: Any, docs: Any, number: int, _: Any) -> str:
        name = source.question_id(task, number, docs[number])
        names[str(task.config.task), number] = name
        return answers[name]

    found, tasks = evaluate(job, spec, look_up, scoring=True)
    key = spec["metric"] if "," in spec["metric"] else f"{spec['metric']},none"
    total = found["results"][spec["name"]].get(key, NO_TOTAL)
    if total is NO_TOTAL:
        raise JobError(f"{spec['name']}: the kit's result has no {key}")
    if spec["circular"]:
        questions = [{"question_id": name, **each} for name, each in watch.circular.items()]
        return {"total": total, "questions": questions}
    questions = []
    for task, samples in found["samples"].items():
        for each in samples:
            name = names[task, each["doc_id"]]
            questions.append(
                {"question_id": name, **outcome(tasks[task], each, spec, answers[name])}
            )
    # MathVista's total is nothing where no answer is right.
    return {"total": 0.0 if total is None else total, "questions": questions}


def outcome(task: Any, each: dict[str, Any], spec: dict[str, Any], answer: str) -> dict[str, Any]:
    """What the kit made of one answer."""
    metric = spec["metric"].split(",")[0]
    value, graded = each[metric], spec["judging"] == "grader"
    told = value if isinstance(value, dict) else {}
    read = next((told[name] for name in READ if name in told), each["filtered_resps"])
    found: float | None
    if "score" in told or "true_false" in told:
        found = float(told["score"] if "score" in told else told["true_false"])
    elif told:
        found = float(task.aggregation()[metric]([copy.deepcopy(value)]))
    else:
        found = float(value)
    # What the kit keeps where its judge said nothing that it understands.
    if graded and (told.get("eval_model") == "" or (told.get("extraction") == "" and answer)):
        found = None
    return {
        "outcome": found,
        "extracted": plain_text(read),
        "judged": graded,
        "stratum": str(told.get(STRATA.get(spec["name"], ""), "")),
    }


def plain_text(value: Any) -> str:
    """A text, or the only one of a list."""
    while isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    return str(value)


PHASES = {"prompts": write_prompts, "score": score}


def main() -> None:
    """Do one job named on the command line, or jobs from standard input until it closes."""
    if len(sys.argv) > 1:
        PHASES[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
        return
    # The kit prints; replies have a channel of their own, and what is printed goes to the log.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import lmms_eval.evaluator  # noqa: F401  Now, while others work: it takes long.

    task_manager()
    for line in sys.stdin:
        request = json.loads(line)
        problem = None
        try:
            PHASES[request["phase"]](request["job"])
        except JobError as error:
            problem = str(error)
        replies.write(json.dumps({"problem": problem}) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
