"""``rilbench data``: the benchmarks' files, and the questions to train on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from rilbench.cli.options import (
    Benchmarks,
    Data,
    Kit,
    Set,
    Student,
    Suite,
    print_table,
    write_whole,
)
from rilbench.errors import UserError

SHOWN = 10
"""How many ids are named."""

if TYPE_CHECKING:
    from rich.table import Table

    from rilbench.checkpoint import Checkpoint
    from rilbench.config import Recipe
    from rilbench.data.build_recipe import DataRecipe
    from rilbench.data.logprob_scores import Scorer
    from rilbench.data.question import Question

# ruff: noqa: UP045  Typer reads Optional on every Python that we support.

data_app = typer.Typer(help="Benchmark files, and the questions to train on.", no_args_is_help=True)

Questions = Annotated[
    str,
    typer.Argument(help="Files of questions (Parquet or JSON lines), by commas or as a pattern."),
]


@data_app.command(name="check")
def data_check(
    suite: Suite = "paper",
    kit: Kit = "vlmevalkit",
    benchmarks: Benchmarks = "",
    data: Data = None,
) -> None:
    """List benchmark files: which exist, are the published ones, and hold whole questions."""
    from rilbench.evaluate.cli_tables import data_table
    from rilbench.evaluate.suite import find_suite

    table, wrong = data_table(find_suite(suite, benchmarks, kit), data)
    print_table(table)
    if wrong:
        raise UserError(wrong)


@data_app.command(name="download")
def data_download(benchmarks: Benchmarks = "", data: Data = None) -> None:
    """Download the published benchmarks' missing files, from VLMEvalKit's addresses."""
    from rilbench.evaluate.data import data_folder, download_data
    from rilbench.evaluate.kits.environment import ensure_environment
    from rilbench.evaluate.suite import find_suite

    suite = find_suite("paper", benchmarks)
    folder = data_folder(suite, data)
    python = ensure_environment(suite.kit, typer.echo)
    download_data(suite, folder, python, typer.echo)
    typer.echo(f"{folder} has all files; check them with: rilbench data check")


@data_app.command(name="mm-vet-v2")
def data_mmvetv2(
    source: Annotated[Path, typer.Argument(help="Unpacked release: mm-vet-v2.json and images.")],
    data: Data = None,
) -> None:
    """Convert MM-Vet v2 to VLMEvalKit's format; the toolkit does not provide this file."""
    from rilbench.evaluate.convert_mmvet_v2 import convert_mmvetv2
    from rilbench.evaluate.data import data_folder
    from rilbench.evaluate.suite import find_suite

    typer.echo(f"written: {convert_mmvetv2(source, data_folder(find_suite('paper'), data))}")


@data_app.command(name="import")
def data_import(
    sources: Annotated[
        list[Path],
        typer.Argument(help="Files (Parquet, JSON or JSON lines) or folders of a data set."),
    ],
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
    images: Annotated[
        Optional[Path],
        typer.Option(
            help="Folder that image paths start from and stay in, also absolute ones; default the "
            "source's folder."
        ),
    ] = None,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Symbolic links out of that folder are followed.")
    ] = False,
    columns: Annotated[
        str,
        typer.Option(
            help="Columns where the recognised layout's are not wanted, such as "
            "answer=extra_info.answer,question=hint+question,options=."
        ),
    ] = "",
    turns: Annotated[
        str,
        typer.Option(help="Turns of a conversation: first, or all, each as a question of its own."),
    ] = "first",
    whole_answers: Annotated[
        bool,
        typer.Option(
            "--whole-answers",
            help="Answers are responses to learn (sft.data) and kept as they are.",
        ),
    ] = False,
    text_only: Annotated[
        bool,
        typer.Option(
            "--text-only", help="Rows without an image are taken as well, as questions of text."
        ),
    ] = False,
    split: Annotated[str, typer.Option(help="Split to read, of a folder.")] = "train",
    name: Annotated[
        str,
        typer.Option(
            "--source", help="Value of `source` for questions without one; default the file's name."
        ),
    ] = "",
) -> None:
    """Convert a data set to a file of questions; its layout is recognised."""
    from rilbench.data.importer import Options, import_questions
    from rilbench.progress import CountProgress

    if turns not in ("first", "all"):
        raise UserError(f"--turns {turns} is not known; use first or all")
    _check_output(out, sources)
    options = Options(
        split,
        _field_columns(columns),
        images,
        follow_links,
        all_turns=turns == "all",
        whole_answers=whole_answers,
        text_only=text_only,
        source=name,
    )
    with CountProgress() as progress:
        report = import_questions(sources, out, options, partial(progress.report, "rows"))
    for reason in report.unused_files:
        typer.echo(f"not used: {reason}", err=True)
    for example in report.examples:
        typer.echo(f"skipped {example}", err=True)
    if report.skipped > len(report.examples):
        typer.echo(f"skipped {report.skipped - len(report.examples)} more", err=True)
    for layout, count in report.layouts.most_common():
        typer.echo(f"layout {layout}: {count} questions")
    for question in report.samples:
        typer.echo(_sample_line(question))
    unused = f"; {len(report.unused_files)} files not used" if report.unused_files else ""
    of_text = f" ({report.without_image} of text only)" if report.without_image else ""
    renamed = f"; {report.renamed} duplicate ids got a number" if report.renamed else ""
    typer.echo(
        f"{out}: {report.questions} questions{of_text} of {report.rows} rows, "
        f"{report.skipped} skipped{renamed}{unused}"
    )


def _sample_line(question: Question) -> str:
    """A question and its gold answer, so that the user sees what was made of the data set."""

    def quoted(text: str, width: int) -> str:
        return json.dumps(text if len(text) <= width else text[:width] + " …", ensure_ascii=False)

    images = f"{question.num_images} image{'s' if question.num_images > 1 else ''}"
    answer = quoted(question.answer, 80)
    return f"  {question.id} ({images}): {quoted(question.question, 240)} answer {answer}"


def _field_columns(text: str) -> dict[str, str]:
    """The columns of ``--columns``, by field."""
    columns = {}
    for pair in filter(None, text.split(",")):
        field, separator, column = pair.partition("=")
        if not separator:
            raise UserError(f"--columns {pair}: write it as field=column, e.g. question=query")
        columns[field.strip()] = column.strip()
    return columns


@data_app.command(name="build")
def data_build(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe, or a YAML file.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
    data: Data = None,
    student: Student = None,
    set_: Set = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be taken from where, and stop.")
    ] = False,
) -> None:
    """Build a training set from public data sets by a recipe, with a manifest of its sources."""
    from rilbench.data.build_recipe import read_data_recipe

    chosen = read_data_recipe(recipe)
    print_table(sources_table(chosen))
    if not dry_run:
        build_training_set(chosen, out, data, _recipe_of(student, set_ or []))


def build_training_set(recipe: DataRecipe, out: Path, data: Path | None, training: Recipe) -> None:
    """Build a training set as far as it is not built, and say where it is.

    Args:
        recipe: what it is made of.
        out: the Parquet file.
        data: folder of the benchmarks; None: the default.
        training: names the student that scores, if the recipe has a pool.

    Raises:
        UserError: as `rilbench.data.build.build`; or the student cannot score here, a benchmark's
            file is missing, or ``out`` is no name of a file, before anything is downloaded.
    """
    from rilbench.data.build import build
    from rilbench.data.contamination.overlap import BenchmarkIndex
    from rilbench.data.manifest import dev_of, manifest_of
    from rilbench.evaluate.data import absent_data, data_folder
    from rilbench.evaluate.suite import find_suite
    from rilbench.progress import CountProgress

    _check_output(out)
    if recipe.pool > 1:
        _check_scorer(training)
    files: list[Path] = []
    if recipe.benchmarks:
        suite = find_suite(recipe.benchmarks)
        folder = data_folder(suite, data)
        files = [folder / f"{dataset.name}.tsv" for dataset in suite.datasets]
        if absent := absent_data(suite, folder):
            names = ", ".join(f"{dataset.name}.tsv" for dataset in absent)
            raise UserError(
                f"{folder} lacks {names}, with which the questions are compared; get them with "
                'rilbench data download, or set benchmarks: "" in the recipe to compare with none'
            )

    class Shown(CountProgress):
        """Counts with bars; notes as lines."""

        def note(self, text: str) -> None:
            typer.echo(text)

    with Shown() as shown:

        def open_benchmarks() -> BenchmarkIndex:
            return BenchmarkIndex(suite, folder, shown.note)

        manifest = build(
            recipe,
            out,
            open_benchmarks if recipe.benchmarks else None,
            (lambda: _load_scorer(training)) if recipe.pool > 1 else None,
            shown,
            benchmark_files=files,
        )
    typer.echo(f"{out}: {manifest['questions']} questions; their sources in {manifest_of(out)}")
    if recipe.dev:
        typer.echo(f"{dev_of(out)}: {recipe.dev} questions for data.dev, of no picture in it")


def sources_table(recipe: DataRecipe) -> Table:
    """What a recipe takes from where."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("source", "from", "revision"):
        table.add_column(heading, overflow="fold")
    table.add_column("questions", justify="right")
    quotas = recipe.quotas(round(recipe.questions * recipe.pool))
    for name, source in recipe.sources.items():
        table.add_row(name, source.hub or source.path, source.revision, f"{quotas[name]:,}")
    chosen = f", of which {recipe.questions:,} are chosen by log-probability"
    end = chosen if recipe.pool > 1 else ""
    dev = f"; {recipe.dev:,} further ones for data.dev" if recipe.dev else ""
    table.caption = f"{sum(quotas.values()):,} questions{end}{dev}"
    table.caption_justify = "left"
    return table


@data_app.command(name="import-responses")
def data_import_responses(
    files: Annotated[
        list[Path], typer.Argument(help="Parquet files, JSON lines, or folders of them.")
    ],
    questions: Annotated[str, typer.Option(help="File of questions, as in data.train.")],
    teacher: Annotated[str, typer.Option(help="Name of the teacher in the recipe, such as 72b.")],
    out: Annotated[Path, typer.Option(help="Folder of the collection, for collection.folder.")],
    model: Annotated[
        str,
        typer.Option(help="Model that wrote the responses; default: the one that the files name."),
    ] = "",
    columns: Annotated[
        str,
        typer.Option(help="Columns, such as id=qid,response=output,model=generator."),
    ] = "",
    keep_reasoning: Annotated[
        bool,
        typer.Option("--keep-reasoning", help="Reasoning in <think> is a part of the response."),
    ] = False,
) -> None:
    """Import a teacher's responses that exist already, and say which questions have none."""
    from rilbench.data.import_responses import COLUMNS, import_responses
    from rilbench.paths import locate_files

    chosen = _field_columns(columns)
    if unknown := [name for name in chosen if name not in COLUMNS]:
        raise UserError(f"--columns {unknown[0]}=… is not known; use {', '.join(COLUMNS)}")
    report = import_responses(
        files,
        locate_files(questions),
        teacher,
        out,
        chosen,
        model=model,
        keep_reasoning=keep_reasoning,
    )
    counts = sorted(report.responses.values())
    each = f"{counts[0]} to {counts[-1]}" if counts[0] != counts[-1] else f"{counts[0]}"
    typer.echo(
        f"{report.file}: {sum(counts)} responses of {report.model} to {len(counts)} of "
        f"{report.questions} questions, {each} to each"
    )
    for words, names in (
        ("questions without a response", report.without),
        ("rows with an id that is no question's", report.unknown),
        ("rows without a response", report.unusable),
    ):
        if names:
            more = ", …" if len(names) > SHOWN else ""
            typer.echo(f"{len(names)} {words}: {', '.join(names[:SHOWN])}{more}")
    if report.empty:
        typer.echo(f"{report.empty} responses without a text, in lists with others")
    if report.other_models:
        typer.echo(f"{report.other_models} rows of other models")
    if report.reasoned:
        kept = "kept" if keep_reasoning else "left out (--keep-reasoning)"
        typer.echo(f"{report.reasoned} responses with reasoning, which is {kept}")
    typer.echo(f"train with: --set collection.folder={out} --set data.train={questions}")


@data_app.command(name="select")
def data_select(
    questions: Questions,
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
    student: Student = None,
    set_: Set = None,
    keep: Annotated[int, typer.Option(help="Number of questions to keep.")] = 40_000,
    easiest: Annotated[float, typer.Option(help="Share to drop as too easy.")] = 0.2,
    hardest: Annotated[float, typer.Option(help="Share to drop as too hard.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    batch: Annotated[int, typer.Option(help="Batch size of the student that scores.")] = 8,
    scores: Annotated[
        Optional[Path],
        typer.Option(help="File of scores to resume from; default --out as .scores.jsonl."),
    ] = None,
) -> None:
    """Select the questions to train on by the student's log-probability and by length."""
    from rilbench.data.select import Rule, select
    from rilbench.paths import locate_files
    from rilbench.progress import CountProgress

    rule = Rule(keep, easiest, hardest, seed)
    if batch < 1:
        raise UserError(f"--batch {batch} must be at least 1")
    paths = locate_files(questions)
    _check_output(out, paths)
    scores_file = scores or out.with_suffix(".scores.jsonl")
    scorer = _load_scorer(_recipe_of(student, set_ or []))
    with CountProgress() as progress:
        on_score = partial(progress.report, "questions")
        report = select(paths, out, scorer, scores_file, rule, batch, on_score)
    write_whole(out.with_suffix(".selection.json"), json.dumps(report, indent=2) + "\n")
    for fate, count in report["fates"].items():
        typer.echo(f"{fate:>15}: {count}")
    kept = report["fates"]["kept"]
    few = f", fewer than --keep {keep}" if kept < keep else ""
    typer.echo(f"{out}: {kept} questions{few}; scores in {scores_file}")


def _recipe_of(student: str | None, overrides: list[str]) -> Recipe:
    from rilbench.config import load_recipe

    return load_recipe("both", student, None, overrides)


def _load_scorer(recipe: Recipe) -> Scorer:
    """Load a recipe's student, which scores questions.

    Raises:
        UserError: it is not here, or needs a GPU.
    """
    from rilbench.data.logprob_scores import Limits, Scorer

    limits = Limits(recipe.data.max_prompt_tokens, recipe.data.max_response_tokens)
    return Scorer(_check_scorer(recipe), limits, recipe.hardware.device)


def _check_scorer(recipe: Recipe) -> Checkpoint:
    """Check that the student can score here, before anything is downloaded for it."""
    from rilbench.checkpoint import inspect_checkpoint
    from rilbench.devices import has_gpu
    from rilbench.extras import require
    from rilbench.paths import locate

    require("train", "rilbench data select")
    if recipe.hardware.device == "cuda" and not has_gpu():
        raise UserError(
            f"{recipe.student.name} needs a GPU to score questions; give --set hardware.device=cpu "
            "to do it slowly, or --student nano"
        )
    return inspect_checkpoint(locate(recipe.student.model))


@data_app.command(name="overlap")
def data_overlap(
    questions: Questions,
    data: Data = None,
    suite: Suite = "paper",
    benchmarks: Benchmarks = "",
    drop: Annotated[
        Optional[Path], typer.Option(help="Parquet file for the questions without overlap.")
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            help="Overlap that counts: image, question, both (of one benchmark question), or any."
        ),
    ] = "image",
    report: Annotated[
        Optional[Path], typer.Option(help="JSON file for every overlap that was found.")
    ] = None,
) -> None:
    """Find contamination: questions whose images or words occur in the benchmarks."""
    from rilbench.data.contamination.overlap import BY, BenchmarkIndex, find_overlap
    from rilbench.data.contamination.render import overlap_json, overlap_table
    from rilbench.data.question_files import iter_questions
    from rilbench.evaluate.data import data_folder
    from rilbench.evaluate.suite import find_suite
    from rilbench.paths import locate_files
    from rilbench.progress import CountProgress

    if by not in BY:
        raise UserError(f"--by {by} is not known; use {', '.join(BY)}")
    paths, chosen = locate_files(questions), find_suite(suite, benchmarks)
    if drop:
        _check_output(drop, paths)
    index = BenchmarkIndex(
        chosen, data_folder(chosen, data), lambda name: typer.echo(name, err=True)
    )
    with CountProgress() as progress:
        on_question = partial(progress.report, "questions")
        overlap = find_overlap(iter_questions(*paths), index, by, drop, on_question)
    if report:
        write_whole(report, json.dumps(overlap_json(overlap, by), ensure_ascii=False) + "\n")
    print_table(overlap_table(overlap))
    for benchmark, tally in overlap.tallies.items():
        if tally.missing:
            typer.echo(f"{benchmark} was not compared: no {', '.join(tally.missing)}", err=True)
        if tally.unreadable:
            typer.echo(f"{benchmark}: {tally.unreadable} rows have no readable image", err=True)
    counts = (
        f"{overlap.questions} questions, {overlap.overlapping} overlap, {overlap.dropped} by {by}"
    )
    rest = f"; {drop} has the other {overlap.questions - overlap.dropped}" if drop else ""
    typer.echo(counts + rest)


def _check_output(out: Path, sources: Iterable[Path] = ()) -> None:
    """Refuse a name that does not say Parquet, and a place where it is read, now or next time."""
    if out.is_dir():
        raise UserError(f"{out} is a folder; give a file to write")
    if out.suffix.lower() != ".parquet":
        raise UserError(f"{out} would be Parquet by another name; end its name in .parquet")
    for source in sources:
        if source.exists() and out.exists() and source.samefile(out):
            raise UserError(f"{out} is the file that is read; give another file to write")
        if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
            raise UserError(
                f"{out} is in the folder that is read, and would be read the next time; give a "
                "file outside of it"
            )
