"""VLMEvalKit's worker: runs under the kit's Python, where rilbench is not installed.

Two jobs, each a JSON object, files in and files out:

``prompts``  {"folder", "datasets", "limit"}
    Reads ``folder/LMUData/<dataset>.tsv``, writes ``folder/questions.jsonl``, one line
    {"dataset", "question_id", "group", "truth", "category", "parts"} per question; image paths in
    it are relative to ``folder``. ``limit`` keeps the first questions of each (a circular
    question with all its rotations counts once).
``score``    {"folder", "datasets", "answers", "out", "judge_url", "judge_name"}
    ``answers`` is a JSON file {dataset: {question_id: text}}; ``out`` a fresh folder. Writes
    ``out/result.json``: per dataset the kit's result as records (null where the kit could not sum
    up) and for each question its outcome, 0–1 or null for a missing verdict, and the answer that
    the kit read from the text.

A dataset is {"name", "circular", "judged", "split"}; only rows of the split are asked (null: all).
Without arguments the jobs come one per line on standard input, {"phase", "job"}, each answered by
{"problem": null or text}; for a look at one job run it with two arguments, the phase and a JSON
file.
"""

import ast
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from vlmeval.dataset import DATASET_CLASSES, build_dataset, prefetch_answer
from vlmeval.dataset.image_mcq import MMMUDataset
from vlmeval.dataset.image_vqa import MMVet
from vlmeval.dataset.utils.mathvista import post_check
from vlmeval.dataset.utils.multiple_choice import MMMU_preproc
from vlmeval.smp import load

PREDICTIONS = "answers.pkl"
JUDGE_ALIAS = "gpt-4-turbo"  # Names the kit's files; who is asked stands in LOCAL_LLM.
JUDGE_THREADS = 32  # The kit sleeps up to half a second before each question to the judge.
NO_VERDICT = "retries failed"


class JobError(Exception):
    """Something in the job that the user can mend."""


class MMVetV2(MMVet):  # type: ignore[misc]
    """MM-Vet v2, which the kit lacks: MM-Vet with ``<image k>`` where a picture stands."""

    DATASET_URL: ClassVar[dict[str, str]] = {"MMVetV2": ""}
    DATASET_MD5: ClassVar[dict[str, str]] = {}

    def build_prompt(self, line: Any) -> Any:
        """The kit's prompt for MM-Vet, with each picture put in its place."""
        return MMMUDataset.split_MMMU(super().build_prompt(line))


DATASET_CLASSES.append(MMVetV2)


def open_dataset(folder: Path, name: str) -> Any:
    """Build a dataset on the files in ``folder/LMUData``."""
    os.environ.update({"LMUData": str(folder / "LMUData")})
    for kind in DATASET_CLASSES:
        # Else a file that is not the hub's own is downloaded over.
        if getattr(kind, "DATASET_MD5", None):
            kind.DATASET_MD5 = {}
    dataset = build_dataset(name)
    # Of its own: the kit keeps MMBench's pictures in both languages under the same names.
    dataset.img_root = str(folder / "LMUData" / "images" / name)
    table = dataset.data
    lacking = {"index", "question", "answer"} - set(table.columns)
    if lacking or not len(table):
        what = f"no column {sorted(lacking)[0]!r}" if lacking else "no question with an image"
        raise JobError(f"{name}.tsv has {what}; make the data again")
    twice = table["index"][table["index"].duplicated()]
    if len(twice):
        # The kit keys its results by index and would count one of them for both.
        raise JobError(f"{name}.tsv has index {twice.iloc[0]} twice; make the data again")
    return dataset


def group_of(index: Any, circular: bool) -> str:
    """The question that a row belongs to; a circular question has several rows."""
    return str(int(index) % 1_000_000 if circular else index)


def asked_rows(table: Any, spec: dict[str, Any]) -> Any:
    """The rows of the dataset's split."""
    name, split = spec["name"], spec["split"]
    if split is None:
        return table
    rows = table[table["split"] == split] if "split" in table else ()
    if not len(rows):
        raise JobError(f"{name}.tsv has no question of the split {split!r}; make the data again")
    return rows


def write_prompts(job: dict[str, Any]) -> None:
    """Do a ``prompts`` job."""
    folder, limit = Path(job["folder"]), job["limit"]
    with (folder / "questions.jsonl").open("w", encoding="utf-8") as sink:
        for spec in job["datasets"]:
            dataset = open_dataset(folder, spec["name"])
            kept: set[str] = set()
            for _, row in asked_rows(dataset.data, spec).iterrows():
                group = group_of(row["index"], spec["circular"])
                if limit is not None and group not in kept and len(kept) >= limit:
                    continue
                kept.add(group)
                question = {
                    "dataset": spec["name"],
                    "question_id": str(row["index"]),
                    "group": group,
                    "truth": str(row["answer"]),
                    "category": str(row["category"]) if "category" in row else None,
                    "parts": [plain_part(part, folder) for part in dataset.build_prompt(row)],
                }
                sink.write(json.dumps(question, ensure_ascii=False) + "\n")


def plain_part(part: dict[str, str], folder: Path) -> dict[str, str]:
    """One part of the kit's prompt, its image path relative to ``folder``."""
    if part["type"] == "image":
        return {"type": "image", "path": str(Path(part["value"]).relative_to(folder))}
    return {"type": "text", "text": part["value"]}


def score(job: dict[str, Any]) -> None:
    """Do a ``score`` job."""
    folder, out = Path(job["folder"]), Path(job["out"])
    answers = json.loads(Path(job["answers"]).read_text(encoding="utf-8"))
    # Tables as TSV: in Excel sheets, the kit's default, a text that begins with "=" is a formula.
    os.environ["PRED_FORMAT"] = "tsv"
    os.environ["OPENAI_API_KEY"] = "none"  # The kit logs it.
    os.environ["OPENAI_API_BASE"] = f"{job['judge_url']}/chat/completions"
    os.environ["LOCAL_LLM"] = str(job["judge_name"])
    result = {}
    for spec in job["datasets"]:
        start = time.monotonic()
        dataset = open_dataset(folder, spec["name"])
        # A folder of its own, entered: the kit replaces ".pkl" anywhere in a path, and keeps
        # results by row index in files beside the predictions.
        place = out / spec["name"]
        place.mkdir()
        os.chdir(place)
        records, questions = score_dataset(dataset, spec, answers[spec["name"]])
        seconds = time.monotonic() - start
        result[spec["name"]] = {"records": records, "questions": questions, "seconds": seconds}
    text = json.dumps({"kit": f"ms-vlmeval {version('ms-vlmeval')}", "datasets": result})
    (out / "result.json").write_text(text, encoding="utf-8")


def score_dataset(dataset: Any, spec: dict[str, Any], answers: dict[str, str]) -> tuple[Any, Any]:
    """Score one dataset in the current folder: the kit's result and the questions' outcomes."""
    table = dataset.data
    table = table[[str(index) in answers for index in table["index"]]].drop(columns="image")
    table["prediction"] = [answers[str(index)] for index in table["index"]]
    # A pickle keeps every text as it is: read from TSV, "05" is 5 and "None" is missing.
    table.to_pickle(PREDICTIONS)
    try:
        if spec["judged"]:
            frame = dataset.evaluate(
                PREDICTIONS, model=JUDGE_ALIAS, nproc=JUDGE_THREADS, verbose=False, retry=2
            )
        else:
            frame = dataset.evaluate(PREDICTIONS, model="exact_matching", nproc=2)
        # Not a number, where a split has no row of a category, is no JSON either.
        records = frame.astype(object).where(frame.notna(), None).to_dict("records")
    except ZeroDivisionError:
        # MM-Vet divides by the questions of each capability, of which a subset may have none.
        records = None
    if spec["judged"]:
        return records, judged_outcomes(spec["name"])
    if dataset.TYPE.startswith("MCQ"):
        return records, choice_outcomes(table, spec)
    return records, match_outcomes()


def judged_outcomes(name: str) -> list[dict[str, Any]]:
    """Outcomes of a judged dataset. The kit writes 0 where the judge gave no verdict; we, null."""
    outcomes = []
    for _, row in load(f"answers_{JUDGE_ALIAS}.tsv").iterrows():
        value, extracted = (None, None) if NO_VERDICT in row["log"] else judged_value(name, row)
        outcomes.append(outcome(row["index"], value, extracted))
    return outcomes


def judged_value(name: str, row: Any) -> tuple[float, Any]:
    """What the kit makes of a judge's reply: the outcome, and the answer if the judge read one."""
    if name == "MathVista_MINI":
        return float(post_check(row)), row["res"]
    if name in ("MMVet", "MMVetV2"):
        return float(row["score"]), None
    raise JobError(f"{name}: its judge's file is not known to this worker")


def choice_outcomes(answers: Any, spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Outcomes of multiple choice, with the letters that the kit read, one for each rotation."""
    if "MMMU" in spec["name"]:  # The kit gives an open question two options; see its function.
        answers = MMMU_preproc(answers)
    read: dict[str, list[str]] = {}
    for _, row in answers.sort_values("index").iterrows():
        letters = read.setdefault(group_of(row["index"], spec["circular"]), [])
        letters.append(prefetch_answer(row) or "-")
    table = load("answers_exact_matching_result.tsv")
    return [
        outcome(row["index"], float(row["hit"]), ",".join(read[str(row["index"])]))
        for _, row in table.iterrows()
    ]


def match_outcomes() -> list[dict[str, Any]]:
    """Outcomes of a comparison with one or several accepted answers: the best match counts."""
    table = load("answers_results.tsv")
    return [
        outcome(row["index"], float(max(ast.literal_eval(row["eval_match"]))), row["eval_pred"])
        for _, row in table.iterrows()
    ]


def outcome(index: Any, value: float | None, extracted: Any) -> dict[str, Any]:
    """One question's line in the result."""
    text = None if extracted is None else str(extracted)
    return {"question_id": str(index), "outcome": value, "extracted": text}


PHASES = {"prompts": write_prompts, "score": score}


def main() -> None:
    """Do one job named on the command line, or jobs from standard input until it closes."""
    if len(sys.argv) > 1:
        PHASES[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
        return
    # The kit prints; replies have a channel of their own, and what is printed goes to the log.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
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
