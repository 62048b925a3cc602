"""A run's recorded groups: all responses to a question in one step."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rilbench.data.row_files import MappedColumn, mapped_column
from rilbench.errors import UserError

MOST_GROUPS = 200
"""Groups shown for a step."""
SAMPLE_EVERY = 10
"""Steps between two samples, on the screen and in trackers."""

_COLUMNS = ("images", "prompt", "reward_model", "extra_info")
"""Of ``data/train.parquet``; see `rilbench.train.pipeline.prepare_data`."""


@dataclass(frozen=True, kw_only=True)
class GroupResponse:
    """One response of a group, as in ``rollouts/step_N.jsonl``; None where nothing was measured.

    Attributes:
        source: "student", or the teacher's name.
        answer: the judge's verdict, 0 or 1.
        similarity: the similarity reward.
        discriminator: the probability that the student wrote it.
        advantage: what the policy's gradient was weighed by.
        tokens: the response's length.
        reward: the sum of its rewards.
    """

    source: str
    response: str
    answer: float | None
    similarity: float | None
    discriminator: float | None
    advantage: float | None
    tokens: int | None
    reward: float | None = None

    @property
    def verdict(self) -> str:
        """The judge's verdict in words."""
        words = {None: "no verdict", 0.0: "wrong", 1.0: "right"}
        return words.get(self.answer) or f"answer {self.answer:.2f}"


@dataclass(frozen=True, kw_only=True)
class RolloutGroup:
    """All responses to one question in one step; without the training data only its id is known."""

    question_id: str
    text: str
    gold: str
    data_set: str
    pictures: tuple[bytes, ...]
    responses: tuple[GroupResponse, ...]


@dataclass(frozen=True, kw_only=True)
class RecordedStep:
    """One recorded step; ``left_out`` is the number of groups that are not shown."""

    number: int
    groups: tuple[RolloutGroup, ...]
    left_out: int = 0


@dataclass(frozen=True)
class _TrainingQuestion:
    text: str
    gold: str
    data_set: str
    pictures: tuple[bytes, ...]


def training_steps(folder: Path, recipe_yaml: str) -> list[RecordedStep]:
    """The first and the last step that a run's folder has a record of; none where it has none."""
    files = {}
    for path in (folder / "rollouts").glob("step_*.jsonl"):
        number = re.fullmatch(r"step_(\d+)", path.stem)
        if number:
            files[int(number[1])] = path
    ends = sorted({min(files), max(files)}) if files else []
    found = {number: _read_groups(files[number]) for number in ends}
    wanted = {name for groups in found.values() for name in list(groups)[:MOST_GROUPS]}
    asked = _questions(folder, recipe_yaml, wanted) if wanted else {}
    return [_step(number, groups, asked) for number, groups in found.items() if groups]


def is_sampled(step: int) -> bool:
    """Whether a sample of a step is shown and logged."""
    return step == 1 or step % SAMPLE_EVERY == 0


def sample_group(folder: Path, number: int) -> RolloutGroup | None:
    """One group of a step, each step another in turn; None where nothing is recorded of it."""
    path = folder / "rollouts" / f"step_{number}.jsonl"
    groups = _read_groups(path) if path.exists() else {}
    if not groups:
        return None
    name = sorted(groups)[number % len(groups)]
    asked = _from_run(folder / "data" / "train.parquet", {name})
    return _step(number, {name: groups[name]}, asked).groups[0]


def _read_groups(path: Path) -> dict[str, list[GroupResponse]]:
    groups: dict[str, list[GroupResponse]] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            question_id, response = str(row["question_id"]), _response(row)
        except (ValueError, LookupError, TypeError):
            continue  # while it trains, or after a kill, the last line may be incomplete
        groups.setdefault(question_id, []).append(response)
    return groups


def _response(row: Mapping[str, Any]) -> GroupResponse:
    def number(name: str) -> float | None:
        value = row.get(name)
        return float(value) if isinstance(value, (int, float)) else None

    tokens = row.get("tokens")
    return GroupResponse(
        source=str(row["source"]),
        response=str(row["response"]),
        answer=number("answer_reward"),
        similarity=number("similarity_reward"),
        discriminator=number("discriminator_prob"),
        advantage=number("advantage"),
        tokens=tokens if isinstance(tokens, int) else None,
        reward=number("reward"),
    )


def _step(
    number: int, groups: Mapping[str, list[GroupResponse]], asked: Mapping[str, _TrainingQuestion]
) -> RecordedStep:
    shown = list(groups)[:MOST_GROUPS]
    nothing = _TrainingQuestion("", "", "", ())
    return RecordedStep(
        number=number,
        groups=tuple(
            RolloutGroup(
                question_id=name,
                text=asked.get(name, nothing).text,
                gold=asked.get(name, nothing).gold,
                data_set=asked.get(name, nothing).data_set,
                pictures=asked.get(name, nothing).pictures,
                responses=tuple(sorted(groups[name], key=lambda row: row.source != "student")),
            )
            for name in shown
        ),
        left_out=len(groups) - len(shown),
    )


def _questions(folder: Path, recipe_yaml: str, wanted: set[str]) -> dict[str, _TrainingQuestion]:
    """The questions' texts and pictures: from the run's folder, else from the recipe's data."""
    return _from_run(folder / "data" / "train.parquet", wanted) or _from_recipe(recipe_yaml, wanted)


def _from_run(path: Path, wanted: set[str]) -> dict[str, _TrainingQuestion]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    found: dict[str, _TrainingQuestion] = {}
    try:
        pictures = mapped_column(path.with_name("pictures.arrow"))
        with pq.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(256, columns=[*_COLUMNS, "data_source"]):
                _take(batch.to_pylist(), wanted, pictures, found)
                if len(found) == len(wanted):
                    break
    except (OSError, UserError, pa.ArrowException, LookupError, TypeError, AttributeError):
        return found
    return found


def _take(
    rows: Iterable[Mapping[str, Any]],
    wanted: set[str],
    pictures: MappedColumn,
    found: dict[str, _TrainingQuestion],
) -> None:
    for row in rows:
        name = str(row["extra_info"]["question_id"])
        if name in wanted:
            found[name] = _TrainingQuestion(
                text=str(row["prompt"][-1]["content"]),
                gold=str(row["reward_model"]["ground_truth"]),
                data_set=str(row["data_source"]),
                pictures=tuple(pictures[image["row"]] for image in row["images"] or ()),
            )


def _from_recipe(recipe_yaml: str, wanted: set[str]) -> dict[str, _TrainingQuestion]:
    from rilbench.data.question_files import read_questions
    from rilbench.paths import locate_files

    try:
        train = str(yaml.safe_load(recipe_yaml)["data"]["train"])
        questions = read_questions(*locate_files(train))
    except (UserError, yaml.YAMLError, LookupError, TypeError):
        return {}
    return {
        each.id: _TrainingQuestion(each.question, each.answer, each.source, each.images)
        for each in questions
        if each.id in wanted
    }
