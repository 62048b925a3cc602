"""Tables that commands print: benchmarks, data files, estimated costs, kits."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.table import Table

from rilbench.evaluate.benchmark import Benchmark, known_benchmarks
from rilbench.evaluate.cost_estimate import Estimate, cost
from rilbench.evaluate.data import check_data, data_folder
from rilbench.evaluate.judge_session import JUDGE_FOLDER, kept_replies
from rilbench.evaluate.kits.environment import environment_name, is_complete, kits_folder
from rilbench.evaluate.suite import LMMSEVAL, VLMEVALKIT, Suite, find_suite
from rilbench.resources import resource

PACKAGES = {VLMEVALKIT: "ms-vlmeval", LMMSEVAL: "lmms-eval"}
"""The kits' Python packages, whose names the ledger records."""
_JUDGES = {"none": "no", "extractor": "may read", "grader": "decides"}


def suite_table(name: str, kit: str = VLMEVALKIT, only: Sequence[str] = ()) -> Table:
    """Return a table of a suite's benchmarks as a kit has them, one row each.

    Args:
        name: of the suite. Below its benchmarks come the other known ones.
        kit: whose data sets are shown.
        only: names of the only benchmarks to show, or paths of TOML files; empty for all.

    Raises:
        UserError: there is no such suite, kit or benchmark.
    """
    suite = find_suite(name).by(kit)
    heads = ("benchmark", kit, "version", "split", "questions", "score", "judge", "data")
    table = _table(*heads)
    for benchmark in suite.pick(only).benchmarks if only else suite.benchmarks:
        _add_benchmark(table, benchmark, suite.published)
    others = [b for column, b in known_benchmarks().items() if column not in suite.columns]
    if others and not only:
        table.add_section()
        for benchmark in others:
            if kit in benchmark.by_kit:
                _add_benchmark(table, replace(benchmark, kit=kit), published=True)
            else:
                table.add_row(benchmark.column, f"only {', '.join(benchmark.by_kit)}")
        table.caption = "last section: evaluated only if named with --benchmarks"
        table.caption_justify = "left"
    return table


def _add_benchmark(table: Table, benchmark: Benchmark, published: bool) -> None:
    datasets = benchmark.datasets
    table.add_row(
        benchmark.column,
        "\n".join(d.name for d in datasets),
        "\n".join(d.version for d in datasets),
        "\n".join(d.split or "" for d in datasets),
        "\n".join(f"{d.questions:,}" if d.questions else "unknown" for d in datasets)
        if published
        else "",
        f"{datasets[0].metric}, 0-{datasets[0].scale}" if datasets[0].scale else "unknown",
        _JUDGES[datasets[0].judging],
        "\n".join(d.hub or f"{d.name}.tsv" for d in datasets),
    )


def data_table(suite: Suite, chosen: Path | None) -> tuple[Table, str]:
    """Return a table of a suite's data files with their states, and what is wrong, in words."""
    if not suite.published:  # lmms-eval's stand-ins are made from VLMEvalKit's files.
        suite = suite.by(VLMEVALKIT)
    table = _table("file", "state", "MB", "SHA-256", "why unverified or broken")
    folder = data_folder(suite, chosen)
    table.title, table.title_justify = str(folder), "left"
    files = check_data(suite, folder)
    for file in files:
        size = f"{file.size / 1e6:.1f}" if file.sha256 else ""
        place = str(file.path.relative_to(folder))
        table.add_row(place, file.state, size, (file.sha256 or "")[:16], file.reason)
    missing = sum(file.state == "missing" for file in files)
    broken = [file.path.name for file in files if file.state == "broken"]
    remedy = "get them with rilbench data download"
    if suite.kit == LMMSEVAL:
        remedy = "rilbench eval --kit lmms-eval gets them from the hub"
    elif not suite.published:
        remedy = "copy them there, or leave --data out for those that are built in"
    wrong = [f"{missing} are missing; {remedy}"] if missing else []
    wrong += [f"no whole data: {', '.join(broken)}; delete and download again"] if broken else []
    return table, "; ".join(wrong)


def estimate_table(estimates: Sequence[Estimate], price: tuple[float, float] | None) -> Table:
    """Return a table of what an evaluation of one model would ask, with the judge's cost."""
    heads = ("benchmark", "questions", "requests", "pictures", "picture tokens", "text tokens")
    table = _table(*heads, "judge calls", "judge tokens")
    for column in table.columns[1:]:
        column.justify = "right"
    for one in estimates:
        table.add_row(one.column, *_sums([one]))
    table.add_section()
    table.add_row("all", *_sums(estimates))
    if price is not None:
        low, high = cost(estimates, price)
        table.caption = f"judge, about: {low:.2f} to {high:.2f} in the unit of --price"
        table.caption_justify = "left"
    return table


def _sums(estimates: Sequence[Estimate]) -> list[str]:
    """Return the cells of the estimates' sums."""

    def between(low: int, high: int) -> str:
        return f"{low:,}" if low == high else f"{low:,} to {high:,}"

    return [
        f"{sum(one.questions for one in estimates):,}",
        f"{sum(one.requests for one in estimates):,}",
        f"{sum(one.pictures for one in estimates):,}",
        f"{sum(one.picture_tokens for one in estimates):,}",
        f"{sum(one.text_tokens for one in estimates):,}",
        between(sum(one.certain for one in estimates), sum(one.possible for one in estimates)),
        between(
            sum(one.judge_tokens for one in estimates),
            sum(one.possible_tokens for one in estimates),
        ),
    ]


def verdicts_table(work: Path) -> Table:
    """Return a table of the judges' replies in a work folder; deleting a file forgets them."""
    table = _table("judge", "replies", "file")
    for kept in kept_replies(work / JUDGE_FOLDER):
        table.add_row(kept.judge, f"{kept.replies:,}", str(kept.file))
    if not table.rows:
        table.add_row("none", "", str(work / JUDGE_FOLDER))
    return table


def kits_table() -> Table:
    """Return a table of the kits: the pinned version, and where the environment is."""
    table = _table("kit", "version", "environment")
    for kit, package in PACKAGES.items():
        lock = resource(f"requirements/{kit}.lock")
        lines = lock.read_text(encoding="utf-8").splitlines()
        pin = next(line for line in lines if line.startswith(f"{package}=="))
        home = kits_folder() / environment_name(kit, lock)
        made = str(home) if is_complete(home) else "made on first use"
        table.add_row(kit, pin.split(";")[0].strip(), made)
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column != "environment")
    return table
