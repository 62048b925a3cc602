"""Build a training set by its recipe: ``rilbench data build``.

Each source is fetched, read (`rilbench.data.importer`), filtered and compared with the benchmarks;
a source that is done is not done again when the command is given again. Then the questions are
drawn, a quota from each source, first those that are held out for ``data.dev``. If the recipe has a
pool, the student's log-probability chooses those to train on from it (`rilbench.data.select`). The
manifest beside each file says where its questions are from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from rilbench.data.build_recipe import DataRecipe, Source, as_plain
from rilbench.data.contamination.overlap import BenchmarkIndex, find_overlap
from rilbench.data.importer import Options, Report, read_data_set
from rilbench.data.manifest import dev_of, digest_of, manifest_of
from rilbench.data.question import Question
from rilbench.data.question_files import iter_questions, write_questions
from rilbench.data.select import Rule, select
from rilbench.errors import UserError
from rilbench.hub import Snapshot, download_dataset
from rilbench.ledger.builder import sha256
from rilbench.paths import whole_file

_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


class Tell(Protocol):
    """Told how a build goes on."""

    def note(self, text: str) -> None:
        """A line that a user shall read."""

    def report(self, text: str, done: int, total: int = 0) -> None:
        """So many are done; the first word of ``text`` names them. A total of 0 is not known."""


@dataclass(frozen=True)
class Candidates:
    """The questions of one source that may be drawn."""

    name: str
    file: Path
    counts: dict[str, Any]
    """What the manifest says of the source."""


def build(
    recipe: DataRecipe,
    out: Path,
    open_benchmarks: Callable[[], BenchmarkIndex] | None,
    scorer: Callable[[], Any] | None,
    tell: Tell,
    *,
    benchmark_files: Iterable[Path] = (),
) -> dict[str, Any]:
    """Build a training set, and its dev split if the recipe has one; return its manifest.

    Args:
        recipe: what it is made of.
        out: the Parquet file; ``OUT.build`` beside it keeps the candidates of each source, from
            which another draw is quick.
        open_benchmarks: reads the benchmarks to compare with; None for none.
        scorer: loads the student that scores, if the recipe has a pool.
        tell: told what is done.
        benchmark_files: what ``open_benchmarks`` reads: with others, candidates are compared again.

    Raises:
        UserError: a source cannot be had or read, or has too few questions left.
    """
    parts = out.with_suffix(".build")
    _check_paths(recipe, out)
    parts.mkdir(parents=True, exist_ok=True)
    index: list[BenchmarkIndex] = []

    def benchmarks() -> BenchmarkIndex | None:
        if open_benchmarks and not index:
            index.append(open_benchmarks())
        return index[0] if index else None

    compared = f"{recipe.benchmarks} {_state(benchmark_files)}"
    found = [
        _candidates(recipe, name, source, parts, benchmarks, compared, tell)
        for name, source in recipe.sources.items()
    ]
    tell.note(f"drawing from {sum(each.counts['candidates'] for each in found)} candidates")
    chosen = _choose(recipe, found)
    for_dev = {name: rows.dev for name, rows in chosen.items()}
    drawn = parts / "drawn"  # unlike any source's, which end in .parquet
    write_questions(drawn, _mixed(found, {name: rows.train for name, rows in chosen.items()}))
    selection = None
    if scorer is not None:
        rule = Rule(recipe.questions, recipe.easiest, recipe.hardest, recipe.seed)
        journal, total = parts / "scores.jsonl", round(recipe.questions * recipe.pool)
        on_score = partial(tell.report, "scored by the student", total=total)
        selection = select([drawn], out, scorer(), journal, rule, 8, on_score)
    else:
        drawn.replace(out)
    if recipe.dev:
        write_questions(dev_of(out), _mixed(found, for_dev))
        _write_manifest(recipe, dev_of(out), found, None)
    return _write_manifest(recipe, out, found, selection)


def _check_paths(recipe: DataRecipe, out: Path) -> None:
    """Refuse local sources that are not here, or would get what is built, before any download."""
    for name, source in recipe.sources.items():
        place = recipe.folder / source.path
        if source.path and not place.exists():
            raise UserError(f"sources.{name}.path: {place} does not exist; give a file or a folder")
        if source.path and out.resolve().is_relative_to(place.resolve()):
            raise UserError(
                f"sources.{name}.path: {place} would have {out} in it, and be read with it the "
                "next time; give another --out"
            )


def _candidates(
    recipe: DataRecipe,
    name: str,
    source: Source,
    parts: Path,
    benchmarks: Callable[[], BenchmarkIndex | None],
    compared: str,
    tell: Tell,
) -> Candidates:
    """Fetch, read, filter and compare one source, unless that is done."""
    snapshot = _fetch(recipe, source, tell, name)
    made_of = {
        "source": {
            key: value for key, value in vars(source).items() if key not in ("share", "note")
        },
        "revision": snapshot.revision,
        "beside": _beside(recipe.folder / source.path) if source.path else "",
        "benchmarks": compared,
        "overlap": recipe.overlap,
    }
    file, record = parts / f"{name}.parquet", parts / f"{name}.json"
    digest = hashlib.sha256(json.dumps(made_of, sort_keys=True, default=str).encode()).hexdigest()
    if file.exists() and record.exists():
        saved = json.loads(record.read_text(encoding="utf-8"))
        if saved["made_of"] == digest:
            return Candidates(name, file, saved["counts"])
    record.unlink(missing_ok=True)  # of other candidates than the file will have
    options = Options(
        split=source.split, columns=source.columns, all_turns=source.all_turns, source=name
    )
    report = Report()
    rows = read_data_set(snapshot.files, options, report, partial(tell.report, f"{name} rows"))
    short = _Short(rows, name, source)
    index = benchmarks()
    if index is None:
        write_questions(file, short)
        in_benchmarks = 0
    else:
        overlap = find_overlap(short, index, recipe.overlap, file, lambda _: None)
        in_benchmarks = overlap.dropped
    counts = {
        "revision": snapshot.revision,
        "license": snapshot.license,
        "rows": report.rows,
        "skipped": report.skipped,
        "skipped_first": [_without(snapshot.files, text) for text in report.examples[:3]],
        "files_not_used": [_without(snapshot.files, reason) for reason in report.unused_files],
        "layouts": dict(report.layouts),
        "too_long": report.questions - short.kept,
        "in_benchmarks": in_benchmarks,
        "candidates": short.kept - in_benchmarks,
    }
    with whole_file(record) as part:
        part.write_text(json.dumps({"made_of": digest, "counts": counts}), encoding="utf-8")
    tell.note(f"{name}: {counts['candidates']} candidates of {report.rows} rows")
    return Candidates(name, file, counts)


def _without(places: Sequence[Path], text: str) -> str:
    """A text without the folders of this machine."""
    for place in places:
        text = text.replace(f"{place if place.is_dir() else place.parent}/", "")
    return text


def _fetch(recipe: DataRecipe, source: Source, tell: Tell, name: str) -> Snapshot:
    """A source's files: the hub's, or local ones, whose revision is a hash of their contents."""
    if source.hub:
        tell.note(f"{name}: {source.hub} at {source.revision}")
        return download_dataset(source.hub, source.revision, source.files)
    place = recipe.folder / source.path
    digest = hashlib.sha256()
    for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
        if file.is_file():
            digest.update(file.relative_to(place.parent).as_posix().encode())
            digest.update(sha256(file).encode())
    return Snapshot((place,), digest.hexdigest()[:40], "")


def _beside(place: Path) -> str:
    """The state of what may be a file's pictures; "" for a folder.

    Not a part of the revision, which other machines have too.
    """
    if place.is_dir():
        return ""
    found = sorted(place.parent.rglob("*"))
    return _state(file for file in found if file.suffix.lower() in _PICTURES and file.is_file())


def _state(files: Iterable[Path]) -> str:
    """A hash over names, sizes and times of files."""
    digest = hashlib.sha256()
    for file in files:
        found = file.stat()
        digest.update(f"{file}\x1f{found.st_size}\x1f{found.st_mtime_ns}\x1e".encode())
    return digest.hexdigest()


class _Short:
    """The questions of a source that are within its limits, named by it, once; counts them.

    Raises:
        UserError: there is none.
    """

    def __init__(self, questions: Iterable[Question], name: str, source: Source) -> None:
        self.questions, self.name, self.source = questions, name, source
        self.kept = 0

    def __iter__(self) -> Iterator[Question]:
        for question in self.questions:
            if _within(question.question, self.source.max_question_words) and _within(
                question.answer, self.source.max_answer_words
            ):
                self.kept += 1
                yield replace(question, id=f"{self.name}/{question.id}", source=self.name)
        if not self.kept:
            raise UserError(
                f"sources.{self.name}: every question is longer than its limits; raise them"
            )


def _within(text: str, limit: int) -> bool:
    return not limit or len(text.split()) <= limit


class _Rows(NamedTuple):
    """Numbers of a source's candidates that are drawn."""

    dev: set[int]
    train: set[int]


def _choose(recipe: DataRecipe, found: Sequence[Candidates]) -> dict[str, _Rows]:
    """Draw from each source by its share: the questions of dev, then those to train on.

    Raises:
        UserError: a source has too few.
    """
    order = {candidates.name: sorted(_keyed(candidates, recipe.seed)) for candidates in found}
    of_dev, quotas = recipe.quotas(recipe.dev), recipe.quotas(round(recipe.questions * recipe.pool))
    held = {name: some[: of_dev[name]] for name, some in order.items()}
    pictures = {digest for some in held.values() for each in some for digest in each.pictures}
    chosen = {}
    for name, some in order.items():
        left = [each.row for each in some if pictures.isdisjoint(each.pictures)]
        if len(held[name]) < of_dev[name] or len(left) < quotas[name]:
            without = f", without the pictures of dev={recipe.dev}," if recipe.dev else ""
            raise UserError(
                f"sources.{name} has {len(left)} questions left{without} and the recipe takes "
                f"{quotas[name]}; lower its share, questions or pool, or add a source"
            )
        chosen[name] = _Rows({each.row for each in held[name]}, set(left[: quotas[name]]))
    return chosen


class _Keyed(NamedTuple):
    """A candidate with its place in the draw."""

    key: str
    """Pseudo-random; depends on the seed and on the question's id only."""
    row: int
    pictures: tuple[bytes, ...]
    """A hash of each."""


def _keyed(candidates: Candidates, seed: int) -> Iterator[_Keyed]:
    for row, question in enumerate(iter_questions(candidates.file)):
        text = f"{seed}\x1f{question.id}".encode("utf-8", "surrogatepass")
        pictures = (hashlib.sha256(image).digest() for image in question.images)
        yield _Keyed(hashlib.sha256(text).hexdigest(), row, tuple(pictures))


def _mixed(found: Sequence[Candidates], rows: Mapping[str, AbstractSet[int]]) -> Iterator[Question]:
    """Yield the questions of these rows of all sources, as evenly mixed as their numbers allow."""
    streams, turns = {}, []
    for candidates in found:
        wanted = rows[candidates.name]
        streams[candidates.name] = _at_rows(candidates.file, wanted)
        turns += [((turn + 0.5) / len(wanted), candidates.name) for turn in range(len(wanted))]
    for _, name in sorted(turns):
        yield next(streams[name])


def _at_rows(file: Path, rows: AbstractSet[int]) -> Iterator[Question]:
    return (question for row, question in enumerate(iter_questions(file)) if row in rows)


def _write_manifest(
    recipe: DataRecipe, out: Path, found: Sequence[Candidates], selection: dict[str, Any] | None
) -> dict[str, Any]:
    """Write where every question of a built file is from, and return it."""
    kept: dict[str, int] = dict.fromkeys(recipe.sources, 0)

    def counted() -> Iterator[Question]:
        for question in iter_questions(out):
            kept[question.source] += 1
            yield question

    digest = digest_of(counted())
    sources = {
        candidates.name: {**candidates.counts, "questions": kept[candidates.name]}
        for candidates in found
    }
    manifest = {
        "recipe": as_plain(recipe),
        "recipe_fingerprint": recipe.fingerprint,
        "questions": sum(kept.values()),
        "questions_sha256": digest,
        "sources": sources,
        "selection": selection,
    }
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    with whole_file(manifest_of(out)) as part:
        part.write_text(text, encoding="utf-8")
    return manifest
