"""The command line: parse, call one function, print. Nothing heavy is imported before that."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from rilbench import __version__
from rilbench.errors import UserError

# ruff: noqa: UP045  Typer reads Optional on every Python that we support.

app = typer.Typer(
    name="rilbench",
    help="RIL for vision-language models: train a small student with its teachers, evaluate it, "
    "and see the paper's table beside what was measured.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
nano_app = typer.Typer(help="The laboratory: small models and benchmarks.", no_args_is_help=True)
app.add_typer(nano_app, name="nano")
lab_app = typer.Typer(help="The laboratory's experiments (docs/lab.md).", no_args_is_help=True)
app.add_typer(lab_app, name="lab")

data_app = typer.Typer(help="The benchmarks' data files.", no_args_is_help=True)
app.add_typer(data_app, name="data")
kits_app = typer.Typer(help="The evaluation kits' environments.", no_args_is_help=True)
app.add_typer(kits_app, name="kits")

Data = Annotated[
    Optional[Path],
    typer.Option(
        "--data", help="Folder with the data files; default the laboratory's, or ~/LMUData."
    ),
]
Db = Annotated[
    Optional[Path],
    typer.Option("--db", help="The ledger; default $RILBENCH_DB, else rilbench.db here."),
]


def _version(value: bool) -> None:
    if value:
        typer.echo(f"rilbench {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of the program itself."""


@app.command()
def train(
    recipe: Annotated[str, typer.Option(help="72b, 78b or both: whose teachers.")],
    student: Annotated[
        Optional[str], typer.Option(help="The student; default qwen2.5-vl-7b. nano needs no GPU.")
    ] = None,
    method: Annotated[
        Optional[str],
        typer.Option(help="ril, imitation, teacher-rows, dr-grpo, grpo or sft; default ril."),
    ] = None,
    run: Annotated[
        Optional[str], typer.Option("--run", help="Name of the run; default from the others.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Where runs live.")] = Path("runs"),
    set_: Annotated[
        Optional[list[str]], typer.Option("--set", help="A setting, e.g. schedule.steps=100.")
    ] = None,
    seed: Annotated[Optional[int], typer.Option(help="Short for --set seed=N.")] = None,
    steps: Annotated[Optional[int], typer.Option(help="Short for --set schedule.steps=N.")] = None,
    eval_every: Annotated[
        Optional[int], typer.Option(help="Score the dev split every N steps (never benchmarks).")
    ] = None,
    log: Annotated[
        Optional[list[str]], typer.Option(help="Also log to tensorboard or wandb; repeatable.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Continue an unfinished run.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Print the resolved recipe and stop.")] = False,
) -> None:
    """Train a student by RIL: collect → sft → discriminator → ril → export."""
    from rilbench.recipe import load_recipe

    overrides = list(set_ or [])
    shorthands = {"seed": seed, "schedule.steps": steps, "schedule.eval_every": eval_every}
    overrides += [f"{key}={value}" for key, value in shorthands.items() if value is not None]
    resolved = load_recipe(recipe, student, method, overrides)
    if dry_run:
        typer.echo(resolved.to_yaml(), nl=False)
        return
    from rilbench.train import stages

    stages.check_trackers(log or [])
    name = run or f"{resolved.student.name}-{resolved.recipe}-{resolved.method}"
    if not resume and not (runs / name).exists():
        stages.check_recipe(resolved)
    opened = stages.open_run(runs / name, resolved, resume=resume)
    if opened.finished:
        typer.echo(f"{runs / name} is finished ({resolved.fingerprint}): {opened.checkpoint}")
        return
    _train(opened, log or [])


def _train(run: object, trackers: list[str]) -> None:
    from rich.console import Console

    from rilbench.train import stages
    from rilbench.train.view import TrainingView

    assert isinstance(run, stages.Run)
    recipe = run.recipe
    title = f"{recipe.method}: {recipe.student.name} with {recipe.teacher_label} → {run.folder}"
    with TrainingView(Console(), title, recipe.schedule.steps) as view:
        checkpoint = stages.train(run, view, trackers)
    typer.echo(f"the trained student is in {checkpoint}")
    typer.echo(f"evaluate it with: rilbench eval --model {checkpoint}")


@app.command(name="eval")
def evaluate(
    model: Annotated[
        Optional[list[str]],
        typer.Option(help="A checkpoint folder, or nano:restyled; repeatable."),
    ] = None,
    suite: Annotated[
        str, typer.Option(help="paper: the published sets; nano: the laboratory's look-alikes.")
    ] = "nano",
    benchmarks: Annotated[
        str, typer.Option(help="Only these columns, such as MMStar,BLINK; default all 14.")
    ] = "",
    list_: Annotated[bool, typer.Option("--list", help="Show the suite's benchmarks.")] = False,
    data: Data = None,
    db: Db = None,
    work: Annotated[
        Path, typer.Option(help="Folder for answers and the kit's own results.")
    ] = Path("runs/eval"),
    judge: Annotated[
        Optional[str],
        typer.Option(help="MODEL@URL, its key in $RILBENCH_JUDGE_KEY; or exact, the default."),
    ] = None,
    endpoint: Annotated[
        Optional[str], typer.Option(help="A server that serves the model already.")
    ] = None,
    limit: Annotated[
        Optional[int], typer.Option(help="Questions per benchmark: always the same sample.")
    ] = None,
    max_tokens: Annotated[
        str, typer.Option(help="The longest answer, in tokens; kit: 2048, of the nano suite 64.")
    ] = "kit",
    engine: Annotated[
        str, typer.Option(help="server, or batch: in this process, faster for small models.")
    ] = "server",
    dry_run: Annotated[
        bool, typer.Option(help="Show what would be asked, and stop; no model is needed.")
    ] = False,
    price: Annotated[
        Optional[str], typer.Option(help="What a million tokens of the judge cost: IN,OUT.")
    ] = None,
) -> None:
    """Score checkpoints with VLMEvalKit, in an environment of its own."""
    if list_:
        from rilbench.evaluate.listing import suite_table

        _print_table(suite_table(suite))
        return
    if not model and not dry_run:
        raise UserError("name the model with --model; a checkpoint's folder, or nano:restyled")
    from rilbench.evaluate.data import data_folder
    from rilbench.evaluate.judging import read_judge
    from rilbench.evaluate.run import Plan, evaluate_many
    from rilbench.evaluate.suite import find_suite
    from rilbench.evaluate.view import EvaluationView
    from rilbench.hardware import has_gpu
    from rilbench.ledger import default_db
    from rilbench.locations import locate

    plan = Plan(
        suite=suite,
        data=data_folder(find_suite(suite), data),
        work=work,
        db=default_db(db),
        judge=read_judge(judge),
        endpoint=endpoint,
        benchmarks=tuple(benchmarks.split(",")) if benchmarks else (),
        limit=limit,
        max_tokens=_max_tokens(max_tokens),
        device="cuda" if has_gpu() else "cpu",
        engine=_engine(engine),
    )
    if dry_run:
        _dry_run(plan, price)
        return
    with EvaluationView() as view:
        evaluations = evaluate_many([locate(name) for name in model or []], plan, view.report)
    for evaluation in evaluations:
        scores = "  ".join(
            f"{s.benchmark} {'-' if s.value is None else format(s.value, '.1f')}"
            for s in evaluation.scores
        )
        typer.echo(f"{evaluation.student} {evaluation.method} {evaluation.teacher}: {scores}")
    typer.echo(f"recorded in {plan.db}; see it with: rilbench table")


def _dry_run(plan: object, price: str | None) -> None:
    from rilbench.evaluate.estimate import read_price
    from rilbench.evaluate.listing import estimate_table
    from rilbench.evaluate.run import Plan, preview
    from rilbench.evaluate.view import EvaluationView

    assert isinstance(plan, Plan)
    prices = read_price(price) if price is not None else None
    with EvaluationView() as view:
        questions = preview(plan, view.report)
    _print_table(estimate_table(plan.chosen(), questions, plan.judge, prices))


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


@app.command()
def table(
    format_: Annotated[str, typer.Option("--format", help="rich, markdown or json.")] = "rich",
    db: Db = None,
) -> None:
    """The paper's main table, and under it what was measured."""
    from rilbench.evaluate.suite import suite_columns
    from rilbench.ledger import Ledger, default_db
    from rilbench.table.compare import table_rows
    from rilbench.table.render import render

    path = default_db(db)
    if db is not None and not path.exists():
        raise UserError(f"{path} does not exist; rilbench eval writes it")
    with Ledger.open_read(path) as ledger:
        rows = table_rows(ledger.evaluations(), suite_columns)
    typer.echo(render(rows, format_, colour=sys.stdout.isatty()))


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="A number, or a model's folder, run, fingerprint.")],
    second: Annotated[str, typer.Argument(help="The same; the newest evaluation of a model.")],
    questions: Annotated[
        bool, typer.Option("--questions", help="List every question that differs.")
    ] = False,
    format_: Annotated[str, typer.Option("--format", help="rich or json.")] = "rich",
    db: Db = None,
) -> None:
    """Why two scores differ: the questions whose outcomes do, by cause."""
    from rilbench.ledger import Ledger, default_db
    from rilbench.table.questions import differences, find_evaluation
    from rilbench.table.questions_view import as_json, questions_table, summary_table

    if format_ not in ("rich", "json"):
        raise UserError(f"--format {format_} is not known; use rich or json")
    with Ledger.open_read(default_db(db)) as ledger:
        sides = [find_evaluation(ledger, name) for name in (first, second)]
        samples = [ledger.samples(each.id or 0) for each in sides]
    found = differences(*samples)
    if format_ == "json":
        typer.echo(as_json(found))
        return
    for word, each in zip(("first", "second"), sides, strict=True):
        typer.echo(f"{word}: {each.id} {each.student} {each.method} {each.teacher}, {each.path}")
    if not found:
        typer.echo("no question has another outcome")
        return
    _print_table(summary_table(found))
    if questions:
        typer.echo()
        _print_table(questions_table(found))


@data_app.command(name="check")
def data_check(
    suite: Annotated[str, typer.Option(help="paper or nano.")] = "paper",
    data: Data = None,
) -> None:
    """Say which data files are there, and whether they are the published ones."""
    from rilbench.evaluate.listing import data_table

    table, missing = data_table(suite, data)
    _print_table(table)
    if missing:
        raise UserError(f"{missing} files are missing; rilbench eval downloads what it can")


@data_app.command(name="mm-vet-v2")
def data_mmvetv2(
    source: Annotated[Path, typer.Argument(help="The unpacked release: mm-vet-v2.json, images.")],
    data: Data = None,
) -> None:
    """Put MM-Vet v2 into VLMEvalKit's format, which the kit has no file of."""
    from rilbench.evaluate.data import data_folder
    from rilbench.evaluate.mmvetv2 import convert_mmvetv2
    from rilbench.evaluate.suite import find_suite

    typer.echo(f"written: {convert_mmvetv2(source, data_folder(find_suite('paper'), data))}")


@kits_app.command(name="list")
def kits_list() -> None:
    """Show the kits, their versions, and whether their environments are made."""
    from rilbench.evaluate.listing import kits_table

    _print_table(kits_table())


@kits_app.command(name="install")
def kits_install(kit: Annotated[str, typer.Argument(help="Its name.")] = "vlmevalkit") -> None:
    """Make a kit's environment now; else it is made when first needed."""
    from rilbench.evaluate.kits.environment import ensure_environment

    typer.echo(ensure_environment(kit, lambda line: typer.echo(line, err=True)).parent.parent)


@kits_app.command(name="path")
def kits_path() -> None:
    """Print the folder that holds the kits' environments; it may be deleted."""
    from rilbench.evaluate.kits.environment import kits_folder

    typer.echo(kits_folder())


def _print_table(table: object) -> None:
    from rich.console import Console

    console = Console()
    # Whole lines where a program reads them.
    console.print(table, crop=False, width=None if console.is_terminal else 200)


@nano_app.command(name="build")
def nano_build(
    out: Annotated[Path, typer.Option(help="Where to put models and data.")] = Path("nano"),
) -> None:
    """Build the laboratory from its seeds: models, questions, benchmarks (about 20 minutes)."""
    from rilbench.nano.build import build
    from rilbench.nano.view import BuildView

    with BuildView() as view:
        build(out, view.report)
    typer.echo(f"built in {out}; use it with: export RILBENCH_NANO={out.resolve()}")


@lab_app.command(name="run")
def lab_run(
    file: Annotated[str, typer.Argument(help="An experiment file, or grid, headline, ablations.")],
    lanes: Annotated[int, typer.Option(help="Runs at a time; each takes one core.")] = 2,
    minutes: Annotated[
        Optional[float], typer.Option(help="Start no run after so many minutes.")
    ] = None,
) -> None:
    """Run an experiment, or what is left of it; finished runs stand in results/nano/rows."""
    from rilbench.lab.experiment import read_experiment
    from rilbench.lab.run import run_experiment
    from rilbench.lab.view import LabView
    from rilbench.resources import resource

    path = Path(file)
    if not path.suffix and not path.exists():
        path = resource("recipes/lab") / f"{file}.yaml"
    with LabView(lanes=lanes) as view:
        outcome = run_experiment(read_experiment(path), view, lanes=lanes, minutes=minutes)
    typer.echo(f"{outcome.before + outcome.done} runs are finished, {outcome.left} are left")


@lab_app.command(name="report")
def lab_report() -> None:
    """Write results/nano/README.md and its figures from the rows."""
    from rilbench.lab.report import write_report

    typer.echo(f"written: {write_report()}")


@lab_app.command(name="gate")
def lab_gate(
    update: Annotated[
        bool, typer.Option("--update", help="Calibrate the bounds anew, from several runs.")
    ] = False,
) -> None:
    """Check one short run of RIL against the bounds in results/nano/gate.json; exit 1 if below."""
    from rilbench.lab.gate import run_gate, update_gate
    from rilbench.lab.view import LabView

    with LabView() as view:
        if update:
            gate = update_gate(view)
            typer.echo("  ".join(f"{name} >= {bound:.3f}" for name, bound in gate.bounds.items()))
            return
        problems = run_gate(view)
    if problems:
        raise UserError("the gate is closed: " + "; ".join(problems))
    typer.echo("the gate is open: this run is like those that calibrated it")


def main() -> None:
    """Run the command line; a user's error is one line on standard error and exit status 1."""
    try:
        app()
    except UserError as error:
        typer.echo(f"rilbench: {error}", err=True)
        sys.exit(1)
