"""lmms-eval's data: from the job's folder, only the rows that are asked, pictures checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
from PIL import Image, ImageFile

if TYPE_CHECKING:
    from rilbench.evaluate.kits.worker_common import (
        UNREADABLE,
        JobError,
        limited,
        question_of_rotation,
        why,
    )
else:
    from worker_common import UNREADABLE, JobError, limited, question_of_rotation, why


class Source:
    """A replacement of ``load_dataset``: from the job's folder, and only the rows asked."""

    def __init__(self) -> None:
        self.load = datasets.load_dataset
        self.job: dict[str, Any] = {}
        self.spec: dict[str, Any] = {}
        self.rows: dict[str, list[int]] = {}
        """Numbers of the rows that are asked, by configuration and split, in their order."""

    def open(self, job: dict[str, Any], spec: dict[str, Any]) -> None:
        """Begin with a dataset."""
        self.job, self.spec, self.rows = job, spec, {}

    def __call__(self, path: str, name: str | None = None, *rest: Any, **settings: Any) -> Any:
        """Load a dataset from the job's folder if it has it, else as the kit does."""
        folder = Path(self.job["data"]) / path / (name or "")
        # Split by split: given a folder, datasets renames the splits val and dev.
        files: dict[str, list[str]] = {}
        for file in sorted(folder.glob("*.parquet")):
            split = file.name.split("-")[0].removesuffix(".parquet")
            files.setdefault(split, []).append(str(file))
        if files:
            cache = str(Path(self.job.get("out") or self.job["folder"]) / "cache")
            splits = self.load("parquet", data_files=files, cache_dir=cache)
        else:
            try:
                splits = self.load(path, name, *rest, **settings)
            except Exception as error:  # the hub's client may raise anything
                raise JobError(
                    f"{folder} has no Parquet files, and the hub cannot be asked ({why(error)}); "
                    "copy the dataset there, or give the folder that has it with --data"
                ) from error
        return type(splits)({split: self.pick(rows, name or "") for split, rows in splits.items()})

    def pick(self, rows: Any, name: str) -> Any:
        """Return the rows that belong to the benchmark."""
        indices = list(range(len(rows)))
        if self.spec["only"] is not None and self.spec["only"][0] in rows.column_names:
            column, value = self.spec["only"]
            indices = [i for i, cell in enumerate(rows[column]) if cell == value]
        self.rows[f"{name}/{rows.split}"] = indices
        return rows if len(indices) == len(rows) else rows.select(indices)

    def limited(self, loaded: dict[Any, Any]) -> dict[Any, Any]:
        """Return the kit's tasks, alone or grouped, with as many rows in all as the job's limit."""
        if self.job["limit"] is None:
            return loaded
        tasks = {_key(task): task for task in _tasks(loaded)}
        groups: dict[
            str, list[str]
        ] = {}  # each row's question, or the one that it is a rotation of
        for key, task in tasks.items():
            groups[key] = [str(number) for number in self.rows[key]]
            if self.spec["circular"]:
                groups[key] = [question_of_rotation(i) for i in task.eval_docs_no_media["index"]]
        by_configuration = {t.config.dataset_name or "": groups[key] for key, t in tasks.items()}
        kept = limited(self.spec["name"], by_configuration, self.job["limit"])
        for key, task in tasks.items():
            kept_here = kept[task.config.dataset_name or ""]
            places = [i for i, group in enumerate(groups[key]) if group in kept_here]
            self.rows[key] = [self.rows[key][i] for i in places]
            split = task.config.test_split
            for data in {id(d): d for d in (task.dataset, task.dataset_no_image)}.values():
                data[split] = data[split].select(places)
        return self._asked(loaded)

    def _asked(self, loaded: dict[Any, Any]) -> dict[Any, Any]:
        """Return only the tasks that have questions: the kit makes no total of an empty one."""
        return {
            name: self._asked(task) if isinstance(task, dict) else task
            for name, task in loaded.items()
            if isinstance(task, dict) or self.rows[_key(task)]
        }

    def question_id(self, task: Any, number: int) -> str:
        """Return a question's name, the same for any limit: its row, or the benchmark's index."""
        if self.spec["circular"]:
            return str(task.eval_docs_no_media[number]["index"])
        row = self.rows[_key(task)][number]
        part = str(task.config.task).removeprefix(f"{self.spec['name']}_")
        return str(row) if self.spec["parts"] == 1 else f"{part}/{row}"


def _key(task: Any) -> str:
    """Return a task's key in `Source.rows`."""
    return f"{task.config.dataset_name or ''}/{task.config.test_split}"


def _tasks(loaded: dict[Any, Any]) -> Iterator[Any]:
    """Yield all tasks, those in groups and in groups of groups too."""
    for task in loaded.values():
        yield from _tasks(task) if isinstance(task, dict) else [task]


class Pictures:
    """A replacement of the library's decoding: an unreadable picture harms no other question.

    One white pixel takes its place. For a score job it takes the place of all pictures, as no
    score looks at them.
    """

    def __init__(self) -> None:
        self.decode = datasets.Image.decode_example
        self.needed = True
        self.count = 0
        self.problem: str | None = None

    def begin(self) -> None:
        """Begin with the next question."""
        self.count, self.problem = 0, None

    def read(self, feature: Any, value: Any, token: Any = None) -> Any:
        """Return one picture."""
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
    """Install both replacements, before the kit is imported."""
    datasets.load_dataset = source
    # A function, as a bound method would not be given the feature.
    datasets.Image.decode_example = lambda feature, value, token_per_repo_id=None: pictures.read(
        feature, value, token_per_repo_id
    )
