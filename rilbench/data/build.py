"""Build a training set by its recipe: ``rilbench data build``.

Each source is fetched, read (`rilbench.data.importer`), filtered and compared with the benchmarks;
a source that is done is not done again when the command is given again. Then the questions are
drawn, a quota from each source, and if the recipe has a pool, chosen from it by the student's
log-probability (`rilbench.data.select`). The manifest beside the file says where each is from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rilbench.data.build_recipe import DataRecipe, Source, as_plain
from rilbench.data.contamination.overlap import BenchmarkIndex, find_overlap
from rilbench.data.importer import Options, import_questions
from rilbench.data.manifest import digest_of, manifest_of
from rilbench.data.question import Question
from rilbench.data.question_files import iter_questions, write_questions
from rilbench.data.select import Rule, select
from rilbench.errors import UserError
from rilbench.hub import Snapshot, download_dataset
from rilbench.ledger.builder import sha256

Note = Callable[[str], None]
"""Called with a line that a user shall read."""


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
    note: Note,
) -> dict[str, Any]:
    """Build a training set; return its manifest.

    Args:
        recipe: what it is made of.
        out: the Parquet file; ``OUT.build`` beside it keeps the candidates of each source, from
            which another draw is quick.
        open_benchmarks: reads the benchmarks to compare with; None for none.
        scorer: loads the student that scores, if the recipe has a pool.
        note: told what is done.

    Raises:
        UserError: a source cannot be had or read, or has too few questions left.
    """
    parts = out.with_suffix(".build")
    parts.mkdir(parents=True, exist_ok=True)
    index: list[BenchmarkIndex] = []

    def benchmarks() -> BenchmarkIndex | None:
        if open_benchmarks and not index:
            index.append(open_benchmarks())
        return index[0] if index else None

    found = [
        _candidates(recipe, name, source, parts, benchmarks, note)
        for name, source in recipe.sources.items()
    ]
    wanted = recipe.quotas(round(recipe.questions * recipe.pool))
    for candidates in found:
        have, need = candidates.counts["candidates"], wanted[candidates.name]
        if have < need:
            raise UserError(
                f"sources.{candidates.name} has {have} questions left and the recipe takes {need}; "
                "lower its share, questions or pool, or add a source"
            )
    drawn = parts / "drawn.parquet"
    write_questions(drawn, _draw(found, wanted, recipe.seed))
    selection = None
    if scorer is not None:
        rule = Rule(recipe.questions, recipe.easiest, recipe.hardest, recipe.seed)
        journal = parts / "scores.jsonl"
        selection = select([drawn], out, scorer(), journal, rule, 8, lambda _: None)
    else:
        drawn.replace(out)
    manifest = _manifest(recipe, out, found, selection)
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    manifest_of(out).write_text(text, encoding="utf-8")
    return manifest


def _candidates(
    recipe: DataRecipe,
    name: str,
    source: Source,
    parts: Path,
    benchmarks: Callable[[], BenchmarkIndex | None],
    note: Note,
) -> Candidates:
    """Fetch, read, filter and compare one source, unless that is done."""
    snapshot = _fetch(recipe, source, note, name)
    made_of = {
        "source": {
            key: value for key, value in vars(source).items() if key not in ("share", "note")
        },
        "revision": snapshot.revision,
        "benchmarks": recipe.benchmarks,
        "overlap": recipe.overlap,
    }
    file, record = parts / f"{name}.parquet", parts / f"{name}.json"
    digest = hashlib.sha256(json.dumps(made_of, sort_keys=True, default=str).encode()).hexdigest()
    if file.exists() and record.exists():
        saved = json.loads(record.read_text(encoding="utf-8"))
        if saved["made_of"] == digest:
            return Candidates(name, file, saved["counts"])
    read = parts / f"{name}.read.parquet"
    options = Options(
        split=source.split, columns=source.columns, all_turns=source.all_turns, source=name
    )
    report = import_questions(snapshot.files, read, options, lambda _: None)
    short = _Short(read, name, source)
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
        "skipped_first": report.examples[:3],
        "files_not_used": report.unused_files,
        "layouts": dict(report.layouts),
        "too_long": report.questions - short.kept,
        "in_benchmarks": in_benchmarks,
        "candidates": short.kept - in_benchmarks,
    }
    read.unlink()
    record.write_text(json.dumps({"made_of": digest, "counts": counts}), encoding="utf-8")
    note(f"{name}: {counts['candidates']} candidates of {report.rows} rows")
    return Candidates(name, file, counts)


def _fetch(recipe: DataRecipe, source: Source, note: Note, name: str) -> Snapshot:
    """A source's files: the hub's, or local ones, whose revision is a hash of their contents."""
    if source.hub:
        note(f"{name}: {source.hub} at {source.revision}")
        return download_dataset(source.hub, source.revision, source.files)
    place = recipe.folder / source.path
    if not place.exists():
        raise UserError(f"sources.{name}.path: {place} does not exist; give a file or a folder")
    digest = hashlib.sha256()
    for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
        if file.is_file():
            digest.update(file.name.encode() + sha256(file).encode())
    return Snapshot((place,), digest.hexdigest()[:40], "")


class _Short:
    """The questions of a source that are within its limits, named by it; counts them.

    Raises:
        UserError: there is none.
    """

    def __init__(self, read: Path, name: str, source: Source) -> None:
        self.read, self.name, self.source = read, name, source
        self.kept = 0

    def __iter__(self) -> Iterator[Question]:
        for question in iter_questions(self.read):
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


def _draw(found: Sequence[Candidates], quotas: Mapping[str, int], seed: int) -> Iterator[Question]:
    """Yield the drawn questions of all sources, as evenly mixed as their numbers allow."""
    streams, turns = {}, []
    for candidates in found:
        quota = quotas[candidates.name]
        rows = {row for _, row in sorted(_keys(candidates, seed))[:quota]}
        streams[candidates.name] = _at_rows(candidates.file, rows)
        turns += [((turn + 0.5) / quota, candidates.name) for turn in range(quota)]
    for _, name in sorted(turns):
        yield next(streams[name])


def _at_rows(file: Path, rows: AbstractSet[int]) -> Iterator[Question]:
    return (question for row, question in enumerate(iter_questions(file)) if row in rows)


def _keys(candidates: Candidates, seed: int) -> Iterator[tuple[str, int]]:
    """A pseudo-random key for each question, which depends on the seed and on its id only."""
    for row, question in enumerate(iter_questions(candidates.file)):
        text = f"{seed}\x1f{question.id}".encode("utf-8", "surrogatepass")
        yield hashlib.sha256(text).hexdigest(), row


def _manifest(
    recipe: DataRecipe, out: Path, found: Sequence[Candidates], selection: dict[str, Any] | None
) -> dict[str, Any]:
    """Where every question of a built training set is from."""
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
    return {
        "recipe": as_plain(recipe),
        "recipe_fingerprint": recipe.fingerprint,
        "questions": sum(kept.values()),
        "questions_sha256": digest,
        "sources": sources,
        "selection": selection,
    }
