"""``rilbench eval`` and ``kits``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from rilbench.cli.options import Benchmarks, Data, Db, print_table
from rilbench.cli.score_report import print_scores, refuse_unscored
from rilbench.errors import UserError

if TYPE_CHECKING:
    from rilbench.evaluate.options import EvalOptions
    from rilbench.ledger import Evaluation

# ruff: noqa: UP045  Typer reads Optional on every Python that we support.

kits_app = typer.Typer(help="Environments of the evaluation toolkits.", no_args_is_help=True)


def evaluate(
    model: Annotated[
        Optional[list[str]],
        typer.Option(help="Checkpoint folder, or nano:restyled; repeatable."),
    ] = None,
    suite: Annotated[
        str, typer.Option(help="Data: paper, published sets; or nano, their synthetic stand-ins.")
    ] = "nano",
    kit: Annotated[
        str, typer.Option(help="Evaluation toolkit: vlmevalkit; or lmms-eval, the cross-check.")
    ] = "vlmevalkit",
    benchmarks: Benchmarks = "",
    list_: Annotated[
        bool, typer.Option("--list", help="List of benchmarks; nothing is evaluated.")
    ] = False,
    data: Data = None,
    db: Db = None,
    work: Annotated[
        Path, typer.Option(help="Folder for responses and the toolkit's results.")
    ] = Path("runs/eval"),
    resume: Annotated[
        bool, typer.Option("--resume/--fresh", help="Use of existing responses, or ask all again.")
    ] = True,
    fresh_verdicts: Annotated[
        bool,
        typer.Option("--fresh-verdicts", help="Score again, and ask the judge everything again."),
    ] = False,
    list_verdicts: Annotated[
        bool,
        typer.Option("--list-verdicts", help="List of judges' replies kept in --work, and stop."),
    ] = False,
    judge: Annotated[
        Optional[str],
        typer.Option(
            help="Judge: MODEL@URL, or several URLs divided by commas, its key in "
            "$RILBENCH_JUDGE_KEY; parser; FILE.py:FUNCTION; or exact (default)."
        ),
    ] = None,
    judge_fields: Annotated[
        str, typer.Option(help="Fields of a request to the judge, as YAML, instead of the kit's.")
    ] = "",
    endpoint: Annotated[
        Optional[str],
        typer.Option(
            help="Server that already serves the model, [MODEL@]URL, or several divided by commas; "
            "--model is then optional."
        ),
    ] = None,
    fields: Annotated[
        str,
        typer.Option(
            help="Fields of a request to the endpoint, as YAML, instead of temperature and so on."
        ),
    ] = "",
    concurrency: Annotated[
        Optional[int],
        typer.Option(
            help="Requests in flight; default: as many as bring more responses per second, from 32 "
            "to 256 for each address of --endpoint or copy in vLLM; 4 for transformers serve."
        ),
    ] = None,
    limit: Annotated[
        Optional[int], typer.Option(help="Questions per data set, always the same sample.")
    ] = None,
    max_tokens: Annotated[
        str,
        typer.Option(
            help="Longest response in tokens; kit: vlmevalkit 2048, lmms-eval each task's."
        ),
    ] = "kit",
    prompt: Annotated[
        str, typer.Option(help="Prompts: dataset, each data set's; model, the kit's for the model.")
    ] = "dataset",
    model_settings: Annotated[
        str,
        typer.Option(
            help="Sizes of images and repetition penalty: checkpoint, the model's own; kit, those "
            "of the toolkit's entry for the model."
        ),
    ] = "checkpoint",
    min_pixels: Annotated[
        Optional[int], typer.Option(help="Pixels to which smaller images are enlarged.")
    ] = None,
    max_pixels: Annotated[
        Optional[int], typer.Option(help="Pixels to which larger images are reduced.")
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            help="Engine: server, vLLM on all GPUs, else transformers; or batch, in this process."
        ),
    ] = "server",
    server_args: Annotated[
        str, typer.Option(help="Options of vllm serve, such as '--max-model-len 16384'.")
    ] = "",
    start_limit: Annotated[
        Optional[float],
        typer.Option(help="Seconds for the start of vllm serve; default 1800, more for a 72B."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option(help="Preview of what would be asked; no model is needed.")
    ] = False,
    price: Annotated[
        Optional[str], typer.Option(help="Prices of a million tokens of the judge: IN,OUT.")
    ] = None,
) -> None:
    """Score checkpoints with an evaluation toolkit, which runs in an environment of its own."""
    if list_:
        from rilbench.evaluate.cli_tables import suite_table

        print_table(suite_table(suite, kit, tuple(benchmarks.split(",")) if benchmarks else ()))
        return
    if list_verdicts:
        from rilbench.evaluate.cli_tables import verdicts_table

        print_table(verdicts_table(work))
        return
    if not model and not endpoint and not dry_run:
        raise UserError(
            "no model named; give a checkpoint folder or nano:restyled with --model, or its server "
            "with --endpoint"
        )
    from rilbench.evaluate.options import read_options
    from rilbench.evaluate.progress import EvaluationProgress
    from rilbench.evaluate.run import evaluate_each
    from rilbench.ledger import default_db
    from rilbench.logs import log_file
    from rilbench.paths import locate

    options = read_options(
        suite=suite,
        kit=kit,
        benchmarks=benchmarks,
        data=data,
        db=default_db(db),
        work=work,
        fresh=not resume,
        fresh_verdicts=fresh_verdicts,
        judge=judge,
        judge_fields=judge_fields,
        endpoint=endpoint,
        fields=fields,
        concurrency=concurrency,
        limit=limit,
        max_tokens=max_tokens,
        prompt=prompt,
        model_settings=model_settings,
        min_pixels=min_pixels,
        max_pixels=max_pixels,
        engine=engine,
        server_args=server_args,
        start_limit=start_limit,
    )
    if dry_run:
        _dry_run(options, model or [], price)
        return
    if price is not None:
        raise UserError("--price is for --dry-run; give both")
    models = [locate(name, "--model") for name in model or []]
    evaluations: list[Evaluation] = []
    try:
        with log_file(work / "rilbench.log"), EvaluationProgress() as progress:
            for evaluation in evaluate_each(models, options, progress.report):
                evaluations.append(evaluation)  # noqa: PERF402  Kept if the next one fails.
    finally:  # A model that fails takes nothing from those before it.
        for evaluation in evaluations:
            print_scores(evaluation)
        if evaluations:
            typer.echo(f"recorded in {options.db}; see it with: rilbench table")
    refuse_unscored(evaluations)


def _dry_run(options: EvalOptions, models: list[str], price: str | None) -> None:
    from rilbench.checkpoint import inspect_checkpoint
    from rilbench.evaluate.cli_tables import estimate_table
    from rilbench.evaluate.cost_estimate import estimate, read_price
    from rilbench.evaluate.dry_run import dry_run_lines, picture_tokens
    from rilbench.evaluate.preview import preview
    from rilbench.evaluate.progress import EvaluationProgress
    from rilbench.paths import locate

    prices = read_price(price) if price is not None else None
    if prices is not None and options.judge.exact:
        raise UserError("the rules cost nothing; with --price give --judge MODEL@URL")
    checkpoints = [inspect_checkpoint(locate(name, "--model")) for name in models]
    if checkpoints:
        options = options.with_model_settings(checkpoints)
    with EvaluationProgress() as progress:
        seen = preview(options, checkpoints, progress.report)
    tokens, questions = {}, []
    if seen.prompts is not None:
        first = checkpoints[0] if checkpoints else None
        tokens = picture_tokens(seen.prompts, options.pixels, first)
        questions = seen.prompts.questions
    estimates = estimate(options.chosen(), questions, options.judge, tokens, seen.absent)
    print_table(estimate_table(estimates, prices))
    if seen.absent:
        names = ", ".join(
            f"{name} ({f'{number:,}' if number else 'of an unknown number of questions'})"
            for name, number in seen.absent.items()
        )
        typer.echo(f"not here, and counted as published without pictures and texts: {names}")
    for line in dry_run_lines(options, estimates, checkpoints, seen.stored):
        typer.echo(line)


@kits_app.command(name="list")
def kits_list() -> None:
    """Show the toolkits, their versions and their environments."""
    from rilbench.evaluate.cli_tables import kits_table

    print_table(kits_table())


@kits_app.command(name="install")
def kits_install(
    kit: Annotated[str, typer.Argument(help="Toolkit: vlmevalkit or lmms-eval.")] = "vlmevalkit",
) -> None:
    """Make a toolkit's environment now instead of at its first use."""
    from rilbench.evaluate.kits import find_kit
    from rilbench.evaluate.kits.environment import ensure_environment

    name = find_kit(kit).name
    typer.echo(ensure_environment(name, lambda line: typer.echo(line, err=True)).parent.parent)


@kits_app.command(name="path")
def kits_path() -> None:
    """Print the folder of the toolkits' environments; it may be deleted."""
    from rilbench.evaluate.kits.environment import kits_folder

    typer.echo(kits_folder())
