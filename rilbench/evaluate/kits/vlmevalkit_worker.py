"""VLMEvalKit's worker: runs under the kit's Python, where rilbench is not installed.

Three jobs, each a JSON object, files in and files out:

``prompts``  {"folder", "datasets", "limit", "style"}
    Reads ``folder/LMUData/<dataset>.tsv``, writes ``folder/questions.jsonl``, one line
    {"dataset", "question_id", "group", "truth", "category", "question", "parts", "problem"} per
    question; image paths in it are relative to ``folder``. Where a picture cannot be read,
    ``problem`` says so and there are no parts. Of data sets that are to be ``tried``, right and
    wrong answers are scored too, into ``folder/trials.json`` (`tried` in `worker_common`).
    ``limit`` keeps a sample of each dataset, always the same (a circular question with all its
    rotations counts once). ``style`` is null for the dataset's own prompts, or one of `STYLES`: the
    kit's prompts for a family of models.
``score``    {"folder", "datasets", "answers", "out", "judge"}
    ``answers`` is a JSON file {dataset: {question_id: text}}; ``out`` a fresh folder; ``judge`` is
    {"url", "name", "reads"}, and ``reads`` says whether it reads options where the kit's rules
    cannot. Writes ``out/result.json``: per dataset the kit's result as records (null where the kit
    could not sum up) and for each question its outcome, 0–1 or null for a missing verdict, the
    answer that the kit read from the text, whether the judge took part, and as ``unread`` its
    choices where it is wrong only because the kit's rules read no letter (`Choice` in `scores`).
``download``  {"folder", "name"}
    Writes ``folder/<name>.tsv``, from where the kit has it.

A dataset is {"name", "circular", "judging", "split", "tried"}, see `rilbench.evaluate.suite`; only
rows of the split are asked (null: all).
Without arguments the jobs come one per line on standard input, {"phase", "job"}, each answered by
{"problem": null or text}; for a look at one job run it with two arguments, the phase and a JSON
file.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from vlmeval.dataset import DATASET_CLASSES
from vlmeval.dataset.image_mcq import CustomMCQDataset
from vlmeval.dataset.image_vqa import MMVet
from vlmeval.smp import download_file, md5

if TYPE_CHECKING:
    from rilbench.evaluate.kits.vlmevalkit_data import (
        MMVetV2,
        asked_rows,
        open_dataset,
        readable,
        refuse_empty,
        refuse_unscored,
    )
    from rilbench.evaluate.kits.vlmevalkit_outcomes import (
        JUDGE_ALIAS,
        choice_outcomes,
        group_of,
        judged_outcomes,
        match_outcomes,
        yes_no_outcomes,
    )
    from rilbench.evaluate.kits.worker_common import (
        JUDGE_THREADS,
        UNREADABLE,
        JobError,
        gold,
        shuffled,
        tried,
        why,
        work,
    )
else:
    from vlmevalkit_data import (
        MMVetV2,
        asked_rows,
        open_dataset,
        readable,
        refuse_empty,
        refuse_unscored,
    )
    from vlmevalkit_outcomes import (
        JUDGE_ALIAS,
        choice_outcomes,
        group_of,
        judged_outcomes,
        match_outcomes,
        yes_no_outcomes,
    )
    from worker_common import (
        JUDGE_THREADS,
        UNREADABLE,
        JobError,
        gold,
        shuffled,
        tried,
        why,
        work,
    )

PREDICTIONS = "answers.pkl"
TRIALS, TRIED = "trials.json", 200
"""The file of the trials, and the questions of each; the kit is slow to score choices."""
YES_NO = "Y/N"
"""The kit's type of data sets whose questions are answered with yes or no."""


def write_prompts(job: dict[str, Any]) -> None:
    """Do a ``prompts`` job."""
    folder, limit = Path(job["folder"]), job["limit"]
    trials = {}
    with (folder / "questions.jsonl").open("w", encoding="utf-8") as sink:
        for spec in job["datasets"]:
            dataset = open_dataset(folder, spec["name"])
            refuse_unscored(dataset, spec)
            build = builder(dataset, job["style"])
            rows = asked_rows(dataset.data, spec)
            if isinstance(dataset, CustomMCQDataset):  # a user's own
                refuse_empty(rows, spec["name"])
            groups = [group_of(index, spec["circular"]) for index in rows["index"]]
            order = shuffled(spec["name"], groups)[:limit]
            kept = set(order)
            for (_, row), group in zip(rows.iterrows(), groups, strict=True):
                if group in kept:
                    question = {
                        "dataset": spec["name"],
                        "question_id": str(row["index"]),
                        "group": group,
                        "truth": str(row["answer"]),
                        "category": category(row, spec["category"]),
                        "question": str(row["question"]),
                        **prompt(build, row, folder),
                    }
                    sink.write(json.dumps(question, ensure_ascii=False) + "\n")
            if spec["tried"]:
                # Scores of yes or no are sums over pairs and categories, which have to be whole.
                chosen = kept if dataset.TYPE == YES_NO else set(order[:TRIED])
                golds = {
                    str(index): gold(str(answer))
                    for index, answer, group in zip(
                        rows["index"], rows["answer"], groups, strict=True
                    )
                    if group in chosen
                }
                trials[spec["name"]] = try_scoring(dataset, spec, golds, limit)
    (folder / TRIALS).write_text(json.dumps(trials), encoding="utf-8")


def try_scoring(
    dataset: Any, spec: dict[str, Any], golds: dict[str, str], limit: int | None
) -> list[dict[str, Any]]:
    """Let the kit score right and wrong answers, before a model is asked for any.

    Raises:
        JobError: it cannot.
    """
    before = Path.cwd()
    working = tempfile.mkdtemp(prefix="rilbench-trial-")

    def score_all(answers: dict[str, str]) -> dict[str, Any]:
        os.chdir(tempfile.mkdtemp(dir=working))
        records, questions = score_dataset(dataset, spec, answers, reads=False, trial=True)
        return {"records": records, "questions": questions}

    try:
        return tried(spec["name"], golds, score_all)
    except Exception as error:  # the kit's code for any of its data sets may raise anything
        sample = f" a sample of {limit} questions; leave out --limit, or" if limit else " it;"
        raise JobError(
            f"{spec['name']}: VLMEvalKit fails to score{sample} evaluate another ({why(error)})"
        ) from error
    finally:
        os.chdir(before)
        shutil.rmtree(working, ignore_errors=True)


def category(row: Any, column: str) -> str | None:
    """Return a question's category; None where the data have none."""
    value = row.get(column)
    return None if value is None or value != value else str(value)


def builder(dataset: Any, style: str | None) -> Callable[[Any], Any]:
    """Return the function from a row to the kit's prompt: the dataset's, or the one for a model."""
    name = MMVet.__name__ if isinstance(dataset, MMVetV2) else dataset.dataset_name
    if style is None:
        return dataset.build_prompt  # type: ignore[no-any-return]
    model = STYLES[style]()
    model.set_dump_image(dataset.dump_image)
    if not model.use_custom_prompt(name):
        return dataset.build_prompt  # type: ignore[no-any-return]
    return lambda row: model.build_prompt(row, dataset=name)


def qwen_prompts() -> Any:
    """Return the kit's prompts for Qwen2-VL and Qwen2.5-VL."""
    from vlmeval.vlm.qwen2_vl.prompt import Qwen2VLPromptMixin

    return Qwen2VLPromptMixin()


def internvl_prompts() -> Any:
    """Return the kit's prompts for InternVL, without its model."""
    from vlmeval.vlm.internvl.internvl_chat import InternVLChat, reorganize_prompt

    class Prompts(InternVLChat):  # type: ignore[misc]
        def __init__(self) -> None:
            """Load nothing."""
            self._use_custom_prompt, self.use_mpo_prompt, self.use_cot = True, False, False

        def build_prompt(self, line: Any, dataset: Any = None) -> Any:
            """Put each picture where the kit's own model has it."""
            parts = super().build_prompt(line, dataset)
            images = [part for part in parts if part["type"] == "image"]
            texts = reorganize_prompt(parts, len(images), dataset=dataset).split("<image>")
            prompt = []
            for text, image in itertools.zip_longest(texts, images):
                prompt += [{"type": "text", "value": text}] if text else []
                prompt += [image] if image else []
            return prompt

    return Prompts()


STYLES = {"qwen2_vl": qwen_prompts, "internvl": internvl_prompts}


def prompt(build: Callable[[Any], Any], row: Any, folder: Path) -> dict[str, Any]:
    """Return the parts of the kit's prompt, or the problem where it makes none."""
    try:
        if "image" in row:
            row["image"] = readable(row["image"])
    except UNREADABLE as error:
        return {"parts": [], "problem": f"its picture cannot be read ({why(error)})"}
    try:
        parts = [plain_part(part, folder) for part in build(row)]
        if "image" not in row:
            for part in parts:
                if part["type"] == "image":
                    Image.open(folder / part["path"]).load()
    except OSError as error:
        return {"parts": [], "problem": f"its picture cannot be read ({why(error)})"}
    except UNREADABLE as error:
        return {"parts": [], "problem": f"the kit makes no prompt of it ({why(error)})"}
    return {"parts": parts, "problem": None}


def plain_part(part: dict[str, str], folder: Path) -> dict[str, str]:
    """Return one part of the kit's prompt, its image path relative to ``folder``."""
    if part["type"] == "image":
        path = Path(part["value"]).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise JobError(f"the data name a picture outside of their folder, {part['value']}")
        return {"type": "image", "path": str(path.relative_to(folder.resolve()))}
    return {"type": "text", "text": part["value"]}


def score(job: dict[str, Any]) -> None:
    """Do a ``score`` job."""
    folder, out = Path(job["folder"]), Path(job["out"])
    answers = json.loads(Path(job["answers"]).read_text(encoding="utf-8"))
    os.environ["OPENAI_API_KEY"] = "none"  # the kit logs it
    judge = job["judge"]
    os.environ["OPENAI_API_BASE"] = f"{judge['url']}/chat/completions"
    os.environ["LOCAL_LLM"] = str(judge["name"])
    result = {}
    for spec in job["datasets"]:
        start = time.monotonic()
        dataset = open_dataset(folder, spec["name"])
        # Each dataset in its own current folder: the kit replaces ".pkl" anywhere in a path, and
        # keeps results by row index in files next to the predictions.
        working = out / spec["name"]
        working.mkdir()
        os.chdir(working)
        records, questions = score_dataset(dataset, spec, answers[spec["name"]], judge["reads"])
        seconds = time.monotonic() - start
        result[spec["name"]] = {"records": records, "questions": questions, "seconds": seconds}
    text = json.dumps({"kit": f"ms-vlmeval {version('ms-vlmeval')}", "datasets": result})
    (out / "result.json").write_text(text, encoding="utf-8")


def score_dataset(
    dataset: Any, spec: dict[str, Any], answers: dict[str, str], reads: bool, *, trial: bool = False
) -> tuple[Any, Any]:
    """Score one dataset in the current folder; return the kit's result and the outcomes.

    In a ``trial`` the kit's errors are raised that it may also owe to questions without an answer.
    """
    # Tables as TSV: in Excel sheets, the kit's default, a text that begins with "=" is a formula.
    os.environ["PRED_FORMAT"] = "tsv"
    graded, reads = spec["judging"] == "grader", reads and spec["judging"] == "extractor"
    table = dataset.data
    table = table[[str(index) in answers for index in table["index"]]]
    # The kit has already dropped this column from a large file.
    table = table.drop(columns="image", errors="ignore")
    table["prediction"] = [answers[str(index)] for index in table["index"]]
    # A pickle keeps every text as it is: read from TSV, "05" is 5 and "None" is missing.
    table.to_pickle(PREDICTIONS)
    try:
        if graded or reads:
            # No pauses and retries: the judge proxy has done that.
            how = {"nproc": JUDGE_THREADS, "verbose": False, "retry": 1, "wait": 0}
            frame = dataset.evaluate(PREDICTIONS, model=JUDGE_ALIAS, **how)
        else:
            frame = dataset.evaluate(PREDICTIONS, model="exact_matching", nproc=2)
        # NaN, where a split has no row of a category, is no JSON.
        records = frame.astype(object).where(frame.notna(), None).to_dict("records")
    except ZeroDivisionError:
        # MM-Vet divides by the number of questions of each capability, 0 in some subsets.
        records = None
    except LookupError:
        # MME needs both questions about a picture, and one may have no answer.
        if dataset.TYPE != YES_NO or trial:
            raise
        records = None
    if graded:
        return records, judged_outcomes(spec["name"])
    if dataset.TYPE.startswith("MCQ"):
        return records, choice_outcomes(table, spec, reads)
    if dataset.TYPE == YES_NO:
        return records, yes_no_outcomes(table, reads)
    return records, match_outcomes(spec["name"])


def download(job: dict[str, Any]) -> None:
    """Do a ``download`` job."""
    name = job["name"]
    (kind,) = [k for k in DATASET_CLASSES if name in getattr(k, "DATASET_URL", {})][:1] or [None]
    if kind is None:
        raise JobError("the kit knows no address for it")
    url, file = kind.DATASET_URL[name], Path(job["folder"]) / f"{name}.tsv"
    try:
        download_file(url, str(file))
    except Exception as error:  # the kit raises no other type
        raise JobError(f"{error}".replace("Failed to download", "no answer from")) from error
    expected = kind.DATASET_MD5.get(name)
    if expected is not None and md5(str(file)) != expected:
        raise JobError(f"{url} is not the file that this version of the kit knows")


if __name__ == "__main__":
    work({"prompts": write_prompts, "score": score, "download": download})
