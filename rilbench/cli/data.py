"""``rilbench data``: the benchmarks' files, and the questions to train on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from rilbench.cli.options import Data, print_table
from rilbench.errors import UserError

if TYPE_CHECKING:
    from rilbench.data.importer import Format
    from rilbench.data.logprob_scores import Scorer

# ruff: noqa: UP045  Typer reads Optional on every Python that we support.

data_app = typer.Typer(
    help="The benchmarks' data files, and the questions to train on.", no_args_is_help=True
)


@data_app.command(name="check")
def data_check(
    suite: Annotated[str, typer.Option(help="paper or nano.")] = "paper",
    kit: Annotated[str, typer.Option(help="vlmevalkit or lmms-eval.")] = "vlmevalkit",
    data: Data = None,
) -> None:
    """Say which data files are there, and whether they are the published ones."""
    from rilbench.evaluate.cli_tables import data_table

    table, missing = data_table(suite, data, kit)
    print_table(table)
    if missing:
        raise UserError(f"{missing} are missing; rilbench eval downloads what it can")


@data_app.command(name="mm-vet-v2")
def data_mmvetv2(
    source: Annotated[Path, typer.Argument(help="The unpacked release: mm-vet-v2.json, images.")],
    data: Data = None,
) -> None:
    """Put MM-Vet v2 into VLMEvalKit's format, which the kit has no file of."""
    from rilbench.evaluate.convert_mmvet_v2 import convert_mmvetv2
    from rilbench.evaluate.data import data_folder
    from rilbench.evaluate.suite import find_suite

    typer.echo(f"written: {convert_mmvetv2(source, data_folder(find_suite('paper'), data))}")


@data_app.command(name="import")
def data_import(
    source: Annotated[Path, typer.Argument(help="The JSON file, or the folder of Parquet files.")],
    out: Annotated[Path, typer.Option(help="The Parquet file to write.")],
    from_: Annotated[
        str, typer.Option("--from", help="llava, hf (Parquet files of the hub), or jsonl.")
    ],
    images: Annotated[
        Optional[Path],
        typer.Option(help="Where paths of pictures start; default the source's folder."),
    ] = None,
    turns: Annotated[
        str, typer.Option(help="Of a conversation: first; or all, each asked by itself.")
    ] = "first",
    columns: Annotated[
        str, typer.Option(help="For hf, such as question=query,answer=label,options=choices.")
    ] = "",
    split: Annotated[str, typer.Option(help="For hf: whose files are read.")] = "train",
    name: Annotated[
        Optional[str],
        typer.Option("--source", help="Of rows that name none; default the source's name."),
    ] = None,
) -> None:
    """Make a file of questions from another format; what cannot be read is skipped and told."""
    from rilbench.data.importer import import_questions

    if turns not in ("first", "all"):
        raise UserError(f"--turns {turns} is not known; use first or all")
    if columns and from_ != "hf":
        raise UserError("--columns is for --from hf; leave it out")
    if images and from_ == "hf":
        raise UserError("--images is for llava and jsonl; hf's paths start at its folder")
    _refuse_itself(source, out)
    format_ = _format(from_, source, images, turns == "all", columns, split, name)
    report = import_questions(format_, out, _say_every(10_000, "rows"))
    for example in report.examples:
        typer.echo(f"skipped {example}", err=True)
    if report.skipped > len(report.examples):
        typer.echo(f"skipped {report.skipped - len(report.examples)} more", err=True)
    renamed = f"; {report.renamed} ids came twice and got a number" if report.renamed else ""
    typer.echo(
        f"{out}: {report.questions} questions of {report.rows} rows, "
        f"{report.skipped} skipped{renamed}"
    )


def _format(
    kind: str,
    source: Path,
    images: Path | None,
    every: bool,
    columns: str,
    split: str,
    name: str | None,
) -> Format:
    from rilbench.data.import_hf import Hub
    from rilbench.data.import_llava import Llava
    from rilbench.data.importer import Jsonl

    if kind not in ("llava", "hf", "jsonl"):
        raise UserError(f"--from {kind} is not known; use llava, hf or jsonl")
    own = name or source.resolve().stem
    if kind == "hf":
        if not source.exists():
            raise UserError(f"{source} does not exist; download the data set, and give its folder")
        return Hub(source, split, _columns(columns), every, own)
    if not source.is_file():
        raise UserError(f"{source} is no file; give the JSON of the data set")
    folder = images or source.parent
    return Llava(source, folder, every, own) if kind == "llava" else Jsonl(source, folder, own)


def _columns(text: str) -> dict[str, str]:
    found = {}
    for each in filter(None, text.split(",")):
        field, separator, column = each.partition("=")
        if not separator or not column.strip():
            raise UserError(f"--columns {each}: write it as field=column, e.g. question=query")
        found[field.strip()] = column.strip()
    return found


@data_app.command(name="select")
def data_select(
    questions: Annotated[str, typer.Argument(help="A file of questions, or nano:prompts.parquet.")],
    out: Annotated[Path, typer.Option(help="The Parquet file to write.")],
    student: Annotated[
        Optional[str], typer.Option(help="Whose log-probabilities and limits count.")
    ] = None,
    set_: Annotated[
        Optional[list[str]],
        typer.Option("--set", help="A setting: student.model, data.max_prompt_tokens, …"),
    ] = None,
    keep: Annotated[int, typer.Option(help="Questions to draw.")] = 40_000,
    easiest: Annotated[float, typer.Option(help="Share that is dropped as too easy.")] = 0.2,
    hardest: Annotated[float, typer.Option(help="Share that is dropped as too hard.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    batch: Annotated[int, typer.Option(help="Questions that the student sees at a time.")] = 8,
    scores: Annotated[
        Optional[Path],
        typer.Option(help="Where scores stand; default beside --out, as .scores.jsonl."),
    ] = None,
) -> None:
    """Choose the questions to train on by the student's log-probability and by length."""
    from rilbench.cli.options import write_whole
    from rilbench.data.select import Rule, select
    from rilbench.paths import locate

    rule = Rule(keep, easiest, hardest, seed)
    if batch < 1:
        raise UserError(f"--batch {batch} must be at least 1")
    path = locate(questions)
    _refuse_itself(path, out)
    journal = scores or out.with_suffix(".scores.jsonl")
    scorer = _scorer(student, set_ or [])
    found = select(path, out, scorer, journal, rule, batch, _say_every(1_000, "questions"))
    write_whole(out.with_suffix(".selection.json"), json.dumps(found, indent=2) + "\n")
    for fate, count in found["fates"].items():
        typer.echo(f"{fate:>15}: {count}")
    kept = found["fates"]["kept"]
    few = f", fewer than --keep {keep}" if kept < keep else ""
    typer.echo(f"{out}: {kept} questions{few}; scores in {journal}")


def _scorer(student: str | None, settings: list[str]) -> Scorer:
    from rilbench.checkpoint import inspect_checkpoint
    from rilbench.config import load_recipe
    from rilbench.data.logprob_scores import Limits, Scorer
    from rilbench.devices import has_gpu
    from rilbench.paths import locate

    recipe = load_recipe("both", student, None, settings)
    if recipe.hardware.device == "cuda" and not has_gpu():
        raise UserError(
            f"{recipe.student.name} needs a GPU to score questions; give --set hardware.device=cpu "
            "to do it slowly, or --student nano"
        )
    checkpoint = inspect_checkpoint(locate(recipe.student.model))
    limits = Limits(recipe.data.max_prompt_tokens, recipe.data.max_response_tokens)
    return Scorer(checkpoint, limits, recipe.hardware.device)


@data_app.command(name="overlap")
def data_overlap(
    questions: Annotated[str, typer.Argument(help="A file of questions, or nano:prompts.parquet.")],
    data: Data = None,
    suite: Annotated[str, typer.Option(help="Whose benchmarks, paper or nano.")] = "paper",
    drop: Annotated[
        Optional[Path], typer.Option(help="Write the questions that do not overlap to this file.")
    ] = None,
    by: Annotated[
        str, typer.Option(help="What is dropped: image, question, both (of one question), or any.")
    ] = "image",
    report: Annotated[
        Optional[Path], typer.Option(help="Write every overlap to this JSON file.")
    ] = None,
) -> None:
    """Show which questions the benchmarks ask, too, or show the pictures of."""
    from rilbench.cli.options import write_whole
    from rilbench.data.contamination.overlap import BY, Benchmarks, find_overlap
    from rilbench.data.contamination.render import overlap_json, overlap_table
    from rilbench.data.question_files import iter_questions
    from rilbench.evaluate.data import data_folder
    from rilbench.evaluate.suite import find_suite
    from rilbench.paths import locate

    if by not in BY:
        raise UserError(f"--by {by} is not known; use {', '.join(BY)}")
    path, chosen = locate(questions), find_suite(suite)
    if drop:
        _refuse_itself(path, drop)
    known = Benchmarks(chosen, data_folder(chosen, data), lambda name: typer.echo(name, err=True))
    say = _say_every(1_000, "questions")
    found = find_overlap(iter_questions(path), known, by, drop, say)
    if report:
        write_whole(report, json.dumps(overlap_json(found, by), ensure_ascii=False) + "\n")
    print_table(overlap_table(found))
    for column, tally in found.tallies.items():
        if tally.missing:
            typer.echo(f"{column} was not compared: no {', '.join(tally.missing)}", err=True)
        if tally.unreadable:
            typer.echo(f"{column}: {tally.unreadable} rows have no readable picture", err=True)
    counts = f"{found.questions} questions, {found.overlapping} overlap, {found.dropped} by {by}"
    typer.echo(
        counts + (f"; {drop} has the other {found.questions - found.dropped}" if drop else "")
    )


def _refuse_itself(source: Path, out: Path) -> None:
    if out.is_dir():
        raise UserError(f"{out} is a folder; give a file to write")
    if source.exists() and out.exists() and source.samefile(out):
        raise UserError(f"{out} is what is read; give another file to write")


def _say_every(number: int, what: str) -> Callable[[int], None]:
    """Say on standard error how far it is, each so many."""
    said = 0

    def say(done: int) -> None:
        nonlocal said
        if done // number > said:
            said = done // number
            typer.echo(f"{done} {what}", err=True)

    return say
