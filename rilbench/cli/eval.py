"""``rilbench eval`` and ``kits``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from rilbench.cli.options import Data, Db, print_table
from rilbench.errors import UserError

if TYPE_CHECKING:
    from rilbench.ledger import Evaluation

# ruff: noqa: UP045  Typer reads Optional on every Python that we support.

kits_app = typer.Typer(help="The evaluation kits' environments.", no_args_is_help=True)


def evaluate(
    model: Annotated[
        Optional[list[str]],
        typer.Option(help="A checkpoint folder, or nano:restyled; repeatable."),
    ] = None,
    suite: Annotated[
        str, typer.Option(help="paper: the published sets; nano: the laboratory's look-alikes.")
    ] = "nano",
    kit: Annotated[
        str, typer.Option(help="vlmevalkit; or lmms-eval, the cross-check.")
    ] = "vlmevalkit",
    benchmarks: Annotated[
        str,
        typer.Option(
            help="Benchmarks, such as MMStar,BLINK, or paths of TOML files; default the suite's 14."
        ),
    ] = "",
    list_: Annotated[
        bool, typer.Option("--list", help="List of benchmarks; nothing is evaluated.")
    ] = False,
    data: Data = None,
    db: Db = None,
    work: Annotated[
        Path, typer.Option(help="Folder for answers and the kit's own results.")
    ] = Path("runs/eval"),
    resume: Annotated[
        bool, typer.Option("--resume/--fresh", help="Go on from the answers there; or ask anew.")
    ] = True,
    judge: Annotated[
        Optional[str],
        typer.Option(help="MODEL@URL, its key in $RILBENCH_JUDGE_KEY; or exact, the default."),
    ] = None,
    endpoint: Annotated[
        Optional[str],
        typer.Option(
            help="[MODEL@]URL of a server that serves the model; --model is then optional."
        ),
    ] = None,
    concurrency: Annotated[
        Optional[int], typer.Option(help="Requests in flight; default 32 with --endpoint, else 4.")
    ] = None,
    limit: Annotated[
        Optional[int], typer.Option(help="Questions per benchmark: always the same sample.")
    ] = None,
    max_tokens: Annotated[
        str,
        typer.Option(
            help="The longest answer in tokens; kit: vlmevalkit 2048, lmms-eval each task's."
        ),
    ] = "kit",
    prompt: Annotated[
        str, typer.Option(help="dataset: each benchmark's own; model: the kit's for this model.")
    ] = "dataset",
    min_pixels: Annotated[
        Optional[int], typer.Option(help="Smaller pictures are enlarged before they are sent.")
    ] = None,
    max_pixels: Annotated[
        Optional[int], typer.Option(help="Larger pictures are reduced before they are sent.")
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            help="server: vLLM on a GPU, else transformers serve; or batch: in this process."
        ),
    ] = "server",
    dry_run: Annotated[
        bool, typer.Option(help="Show what would be asked, and stop; no model is needed.")
    ] = False,
    price: Annotated[
        Optional[str], typer.Option(help="What a million tokens of the judge cost: IN,OUT.")
    ] = None,
) -> None:
    """Score checkpoints with an evaluation kit, in an environment of its own."""
    chosen = tuple(benchmarks.split(",")) if benchmarks else ()
    if list_:
        from rilbench.evaluate.cli_tables import suite_table

        print_table(suite_table(suite, kit, chosen))
        return
    if not model and not endpoint and not dry_run:
        raise UserError(
            "name the model with --model, a checkpoint's folder or nano:restyled; or its server "
            "with --endpoint"
        )
    from rilbench.devices import has_gpu
    from rilbench.evaluate.data import data_folder
    from rilbench.evaluate.image_resize import Pixels
    from rilbench.evaluate.judge_session import read_judge
    from rilbench.evaluate.options import EvalOptions
    from rilbench.evaluate.progress import EvaluationProgress
    from rilbench.evaluate.run import evaluate_many
    from rilbench.evaluate.suite import find_suite
    from rilbench.ledger import default_db
    from rilbench.paths import locate
    from rilbench.serving import vllm_python

    gpu = has_gpu()
    plan = EvalOptions(
        suite=suite,
        data=data_folder(find_suite(suite).by(kit), data),
        work=work,
        db=default_db(db),
        kit=kit,
        judge=read_judge(judge),
        endpoint=endpoint,
        benchmarks=chosen,
        limit=limit,
        max_tokens=_max_tokens(max_tokens),
        concurrency=concurrency,
        fresh=not resume,
        prompt=prompt,
        pixels=Pixels(min_pixels, max_pixels),
        device="cuda" if gpu else "cpu",
        vllm=vllm_python() if gpu else None,
        engine=_engine(engine),
    )
    if dry_run:
        _dry_run(plan, price)
        return
    if price is not None:
        raise UserError("--price is for --dry-run; give both")
    with EvaluationProgress() as view:
        evaluations = evaluate_many([locate(name) for name in model or []], plan, view.report)
    _say_scores(evaluations)
    typer.echo(f"recorded in {plan.db}; see it with: rilbench table")


def _say_scores(evaluations: list[Evaluation]) -> None:
    for evaluation in evaluations:
        scores = "  ".join(
            f"{s.benchmark} {'-' if s.value is None else format(s.value, '.1f')}"
            for s in evaluation.scores
        )
        typer.echo(f"{evaluation.student} {evaluation.method} {evaluation.teacher}: {scores}")
        cut = [
            f"{s.benchmark} {s.truncated} of {s.questions}"
            for s in evaluation.scores
            if s.truncated
        ]
        if cut:
            typer.echo(f"cut at the longest length: {', '.join(cut)}", err=True)
        lost = [
            f"{s.benchmark} {s.missing} of {s.questions}" for s in evaluation.scores if s.missing
        ]
        if lost:
            typer.echo(f"missing verdicts: {', '.join(lost)}; {_why_lost(evaluation)}", err=True)


def _why_lost(evaluation: Evaluation) -> str:
    """Why verdicts are missing, each reason by its first case, and what helps."""
    ends = [s.finish_reason or "" for s in evaluation.samples if s.score is None]
    reasons = [end.removeprefix("error: ") for end in ends if end.startswith("error: ")]
    trouble = evaluation.settings["judge"].get("trouble")
    found = [f"the judge: {trouble}"] if trouble else []
    found += [f"no answer: {reasons[0]}"] if reasons else []
    if not found:  # Its replies are kept, and would be the same.
        return "the judge's replies hold none; another judge may give one"
    return f"{', '.join(found)}; the same command asks again what can be asked"


def _dry_run(plan: object, price: str | None) -> None:
    from rilbench.evaluate.cli_tables import estimate_table
    from rilbench.evaluate.cost_estimate import read_price
    from rilbench.evaluate.options import EvalOptions
    from rilbench.evaluate.progress import EvaluationProgress
    from rilbench.evaluate.run import preview

    assert isinstance(plan, EvalOptions)
    prices = read_price(price) if price is not None else None
    if prices is not None and plan.judge.exact:
        raise UserError("the rules cost nothing; with --price give --judge MODEL@URL")
    with EvaluationProgress() as view:
        questions = preview(plan, view.report)
    print_table(estimate_table(plan.chosen(), questions, plan.judge, prices))


def _max_tokens(text: str) -> int | None:
    if text == "kit":
        return None
    if not text.isdecimal():
        raise UserError(f"--max-tokens {text} is not known; use kit or a number")
    return int(text)


def _engine(name: str) -> Literal["server", "batch"]:
    if name == "batch":
        return "batch"
    if name != "server":
        raise UserError(f"--engine {name} is not known; use server or batch")
    return "server"


@kits_app.command(name="list")
def kits_list() -> None:
    """Show the kits, their versions, and whether their environments are made."""
    from rilbench.evaluate.cli_tables import kits_table

    print_table(kits_table())


@kits_app.command(name="install")
def kits_install(kit: Annotated[str, typer.Argument(help="Its name.")] = "vlmevalkit") -> None:
    """Make a kit's environment now; else it is made when first needed."""
    from rilbench.evaluate.kits import find_kit
    from rilbench.evaluate.kits.environment import ensure_environment

    name = find_kit(kit).name
    typer.echo(ensure_environment(name, lambda line: typer.echo(line, err=True)).parent.parent)


@kits_app.command(name="path")
def kits_path() -> None:
    """Print the folder that holds the kits' environments; it may be deleted."""
    from rilbench.evaluate.kits.environment import kits_folder

    typer.echo(kits_folder())
