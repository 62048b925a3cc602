"""VLMEvalKit's worker: runs under the kit's Python, where rilbench is not installed.

Three jobs, each a JSON object, files in and files out:

``prompts``  {"folder", "datasets", "limit", "style"}
    Reads ``folder/LMUData/<dataset>.tsv``, writes ``folder/questions.jsonl``, one line
    {"dataset", "question_id", "group", "truth", "category", "question", "parts", "problem"} per
    question; image paths in it are relative to ``folder``. Where a picture cannot be read,
    ``problem`` says so and there are no parts. ``limit`` keeps a sample of each dataset, always the
    same (a circular question with all its rotations counts once). ``style`` is null for the
    dataset's own prompts, or one of `STYLES`: the kit's prompts for a family of models.
``score``    {"folder", "datasets", "answers", "out", "judge"}
    ``answers`` is a JSON file {dataset: {question_id: text}}; ``out`` a fresh folder; ``judge`` is
    {"url", "name", "reads"}, and ``reads`` says whether it reads options where the kit's rules
    cannot. Writes ``out/result.json``: per dataset the kit's result as records (null where the kit
    could not sum up) and for each question its outcome, 0–1 or null for a missing verdict, the
    answer that the kit read from the text, whether the judge took part, and as ``unread`` its
    choices where it is wrong only because the kit's rules read no letter (`Choice` in `scores`).
``download``  {"folder", "name"}
    Writes ``folder/<name>.tsv``, from where the kit has it.

A dataset is {"name", "circular", "judging", "split"}, see `rilbench.evaluate.suite`; only rows of
the split are asked (null: all).
Without arguments the jobs come one per line on standard input, {"phase", "job"}, each answered by
{"problem": null or text}; for a look at one job run it with two arguments, the phase and a JSON
file.
"""

from __future__ import annotations

import ast
import itertools
import json
import math
import os
import re
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from vlmeval.dataset import DATASET_CLASSES, prefetch_answer
from vlmeval.dataset.image_vqa import MMVet
from vlmeval.dataset.utils import mmvet, multiple_choice
from vlmeval.dataset.utils.mathvista import post_check
from vlmeval.dataset.utils.vqa_eval import hit_calculate
from vlmeval.smp import download_file, load, md5

if TYPE_CHECKING:
    from rilbench.evaluate.kits.vlmevalkit_data import (
        MMVetV2,
        asked_rows,
        open_dataset,
        readable,
        refuse_unscored,
    )
    from rilbench.evaluate.kits.worker_common import (
        JUDGE_THREADS,
        UNREADABLE,
        JobError,
        NoRandomGuess,
        question_of_rotation,
        shuffled,
        unread,
        why,
        work,
    )
else:
    from vlmevalkit_data import MMVetV2, asked_rows, open_dataset, readable, refuse_unscored
    from worker_common import (
        JUDGE_THREADS,
        UNREADABLE,
        JobError,
        NoRandomGuess,
        question_of_rotation,
        shuffled,
        unread,
        why,
        work,
    )

PREDICTIONS = "answers.pkl"
JUDGE_ALIAS = "gpt-4-turbo"  # names the kit's files; LOCAL_LLM is the model that is asked
NO_VERDICT = "retries failed"
GUESSED = "randomly generate one"


# The kit passes circular results through a file in /tmp that is named after the time in seconds,
# which two evaluations can share. A path into the current folder takes the place of that name.
multiple_choice.timestr = lambda: os.path.relpath(
    Path("circular").absolute(), Path("/tmp").resolve()
)
multiple_choice.rd = NoRandomGuess
grade_by_kit = mmvet.MMVet_auxeval


def grade(model: Any, line: Any) -> dict[str, Any]:
    """Ask MM-Vet's judge as the kit does, but "nan", which the kit takes for a grade, is none."""
    result: dict[str, Any] = grade_by_kit(model, line)
    if math.isfinite(result["score"]):
        return result
    return {"log": f"{result['log']}: {NO_VERDICT}", "score": 0.0}


mmvet.MMVet_auxeval = grade


def group_of(index: Any, circular: bool) -> str:
    """Return the question that a row belongs to; a circular question has several rows."""
    return question_of_rotation(index) if circular else str(index)


def write_prompts(job: dict[str, Any]) -> None:
    """Do a ``prompts`` job."""
    folder, limit = Path(job["folder"]), job["limit"]
    with (folder / "questions.jsonl").open("w", encoding="utf-8") as sink:
        for spec in job["datasets"]:
            dataset = open_dataset(folder, spec["name"])
            refuse_unscored(dataset, spec)
            build = builder(dataset, job["style"])
            rows = asked_rows(dataset.data, spec)
            groups = [group_of(index, spec["circular"]) for index in rows["index"]]
            kept = set(shuffled(spec["name"], groups)[:limit])
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
    # Tables as TSV: in Excel sheets, the kit's default, a text that begins with "=" is a formula.
    os.environ["PRED_FORMAT"] = "tsv"
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
    dataset: Any, spec: dict[str, Any], answers: dict[str, str], reads: bool
) -> tuple[Any, Any]:
    """Score one dataset in the current folder; return the kit's result and the outcomes."""
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
    if graded:
        return records, judged_outcomes(spec["name"])
    if dataset.TYPE.startswith("MCQ"):
        return records, choice_outcomes(table, spec, reads)
    return records, match_outcomes(spec["name"])


def judged_outcomes(name: str) -> list[dict[str, Any]]:
    """Return the outcomes of a judged dataset: None without a verdict, where the kit writes 0."""
    outcomes = []
    for _, row in load(f"answers_{JUDGE_ALIAS}.tsv").iterrows():
        value, extracted = (None, None) if NO_VERDICT in row["log"] else judged_value(name, row)
        outcomes.append(outcome(row["index"], value, extracted, judged=True))
    return outcomes


def judged_value(name: str, row: Any) -> tuple[float | None, Any]:
    """Return the outcome by a judge's reply, and the answer if the judge read one."""
    if name == "MathVista_MINI":
        hidden = row["log"] != "Prefetch succeed" and hides_number(row)
        return None if hidden else float(post_check(row)), row["res"]
    if name in ("MMVet", "MMVetV2"):
        return float(row["score"]), None
    raise JobError(f"{name}: its judge's file is not known to this worker")


def hides_number(row: Any) -> bool:
    """Return whether MathVista's judge extracted a number that the kit cannot read.

    The kit takes ``Extracted answer: 7`` and ``**7**`` for wrong, whatever the number: there is no
    verdict. A reply without a digit, or of a number in another notation alone, is an extraction
    that the kit's rule may call wrong.
    """
    number = {"integer": int, "float": float}.get(row["answer_type"])
    reply = str(row["res"])
    if number is None or row["question_type"] == "multi_choice":
        return False
    try:
        number(reply)
    except ValueError:
        return bool(re.search(r"\d", reply) and re.search(r"[A-Za-z*\n]", reply.strip()))
    return False


def choice_outcomes(answers: Any, spec: dict[str, Any], reads: bool) -> list[dict[str, Any]]:
    """Return the outcomes of multiple choice, with the letters that the kit read by rotation.

    Where the kit's rules read no letter ("-"), a judge that ``reads`` was asked. Where it named no
    option either, the kit guesses one, and the verdict is missing.
    """
    is_open = set(answers["index"][answers["A"].isna()])
    if "MMMU" in spec["name"]:  # The kit gives an open question two options; see its function.
        answers = multiple_choice.MMMU_preproc(answers)
    read: dict[str, list[str]] = {}
    choices: dict[str, list[dict[str, str]]] = {}
    for _, row in answers.sort_values("index").iterrows():
        group, letter = group_of(row["index"], spec["circular"]), prefetch_answer(row)
        read.setdefault(group, []).append(letter or "-")
        if row["index"] not in is_open:
            options = "".join(multiple_choice.build_choices(row))
            choice = {"question_id": str(row["index"]), "options": options}
            choice |= {"gold": str(row["answer"]), "read": letter or ""}
            choices.setdefault(group, []).append(choice)
    table = load(f"answers_{JUDGE_ALIAS if reads else 'exact_matching'}_result.tsv")
    outcomes = []
    for _, row in table.iterrows():
        letters, log = read[str(row["index"])], str(row["log"])
        asked = reads and "-" in letters and not log.startswith("Failed in Prefetching")
        value = None if asked and GUESSED in log else float(row["hit"])
        found = outcome(row["index"], value, ",".join(letters), judged=asked)
        rotations = choices.get(str(row["index"]), [])
        if not asked and unread(rotations):
            found["unread"] = rotations
        outcomes.append(found)
    return outcomes


def match_outcomes(name: str) -> list[dict[str, Any]]:
    """Outcomes of a comparison with one or several accepted answers, by the kit's rule for them."""
    outcomes = []
    for _, row in load("answers_results.tsv").iterrows():
        (value,) = hit_calculate([{"match": ast.literal_eval(row["eval_match"])}], name)
        outcomes.append(outcome(row["index"], float(value), row["eval_pred"]))
    return outcomes


def outcome(
    index: Any, value: float | None, extracted: Any, *, judged: bool = False
) -> dict[str, Any]:
    """Return one question's entry in the result."""
    text = None if extracted is None else str(extracted)
    return {"question_id": str(index), "outcome": value, "extracted": text, "judged": judged}


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
