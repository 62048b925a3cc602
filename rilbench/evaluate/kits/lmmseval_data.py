"""What lmms-eval reads: data from the job's folder, the rows that are asked, and their pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
from PIL import Image, ImageFile

if TYPE_CHECKING:
    from rilbench.evaluate.kits.worker_common import UNREADABLE, JobError, dealt, why
else:
    from worker_common import UNREADABLE, JobError, dealt, why

MILLION = 1_000_000


class Source:
    """In the place of ``load_dataset``: where the dataset in hand is read from, and which rows."""

    def __init__(self) -> None:
        self.load = datasets.load_dataset
        self.job: dict[str, Any] = {}
        self.spec: dict[str, Any] = {}
        self.rows: dict[str, list[int]] = {}
        """Rows that are asked: of each configuration and split, in their order."""

    def open(self, job: dict[str, Any], spec: dict[str, Any]) -> None:
        """Turn to a dataset."""
        self.job, self.spec, self.rows = job, spec, {}

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
                raise JobError(
                    f"{folder} has no Parquet files, and the hub cannot be asked ({why(error)}); "
                    "copy the dataset there, or give the folder that has it with --data"
                ) from error
        return type(found)({split: self.pick(rows, name or "") for split, rows in found.items()})

    def pick(self, rows: Any, name: str) -> Any:
        """The rows that are the benchmark's."""
        indices = list(range(len(rows)))
        if self.spec["only"] is not None and self.spec["only"][0] in rows.column_names:
            column, wanted = self.spec["only"]
            values = rows[column]
            indices = [i for i in indices if values[i] == wanted]
        self.rows[f"{name}/{rows.split}"] = indices
        return rows if len(indices) == len(rows) else rows.select(indices)

    def limited(self, loaded: dict[Any, Any]) -> dict[Any, Any]:
        """The kit's tasks, alone or grouped, with what the job's limit leaves of all together."""
        if self.job["limit"] is None:
            return loaded
        tasks = {_key(task): task for task in _tasks(loaded)}
        groups = {key: self._groups(task) for key, task in tasks.items()}
        named = {task.config.dataset_name or "": groups[key] for key, task in tasks.items()}
        kept = dealt(self.spec["name"], named, self.job["limit"])
        for key, task in tasks.items():
            own = kept[task.config.dataset_name or ""]
            places = [i for i, group in enumerate(groups[key]) if group in own]
            self.rows[key] = [self.rows[key][i] for i in places]
            split = task.config.test_split
            for data in {id(d): d for d in (task.dataset, task.dataset_no_image)}.values():
                data[split] = data[split].select(places)
        return self._asked(loaded)

    def _groups(self, task: Any) -> list[str]:
        """Of each row the question that it is a rotation of, or is."""
        numbers = self.rows[_key(task)]
        if self.spec["circular"]:
            numbers = task.eval_docs_no_media["index"]
        return [str(number % MILLION) for number in numbers]

    def _asked(self, loaded: dict[Any, Any]) -> dict[Any, Any]:
        """Only the tasks that have questions: of another the kit would make no total."""
        return {
            name: self._asked(found) if isinstance(found, dict) else found
            for name, found in loaded.items()
            if isinstance(found, dict) or self.rows[_key(found)]
        }

    def question_id(self, task: Any, number: int) -> str:
        """A question's name, whatever the limit: its row, or the benchmark's own index."""
        if self.spec["circular"]:
            return str(task.eval_docs_no_media[number]["index"])
        row = self.rows[_key(task)][number]
        part = str(task.config.task).removeprefix(f"{self.spec['name']}_")
        return str(row) if self.spec["parts"] == 1 else f"{part}/{row}"


def _key(task: Any) -> str:
    """A task's place in `Source.rows`."""
    return f"{task.config.dataset_name or ''}/{task.config.test_split}"


def _tasks(loaded: dict[Any, Any]) -> Iterator[Any]:
    """The tasks of groups and of groups' groups."""
    for found in loaded.values():
        yield from _tasks(found) if isinstance(found, dict) else [found]


class Pictures:
    """In the place of the library's decoding: one that cannot be read harms no other question.

    A dot takes its place; to score, the place of all, as no score looks at pictures.
    """

    def __init__(self) -> None:
        self.decode = datasets.Image.decode_example
        self.needed = True
        self.count = 0
        self.problem: str | None = None

    def begin(self) -> None:
        """Turn to the next question."""
        self.count, self.problem = 0, None

    def read(self, feature: Any, value: Any, token: Any = None) -> Any:
        """One picture."""
        self.count += 1
        if self.needed:
            ImageFile.LOAD_TRUNCATED_IMAGES = False  # The kit fills what is missing with grey.
            try:
                return self.decode(feature, value, token)
            except UNREADABLE as error:
                self.problem = f"its picture cannot be read ({why(error)})"
        return Image.new("RGB", (1, 1))


source, pictures = Source(), Pictures()


def install() -> None:
    """Put both in their places, before the kit is imported."""
    datasets.load_dataset = source
    # A function, as a bound method would not be given the feature.
    datasets.Image.decode_example = lambda feature, value, token_per_repo_id=None: pictures.read(
        feature, value, token_per_repo_id
    )
