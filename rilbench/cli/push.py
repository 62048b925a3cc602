"""``rilbench push``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rilbench.cli.options import Db, ledger_to_read


def push(
    run: Annotated[str, typer.Argument(help="Finished run: its name, or its folder.")],
    to: Annotated[str, typer.Option("--to", help="Repository on the hub: OWNER/NAME.")],
    collections: Annotated[
        bool, typer.Option("--collections", help="The saved responses, not the checkpoint.")
    ] = False,
    public: Annotated[
        bool, typer.Option("--public", help="A new repository is public; else private.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the card; nothing is published.")
    ] = False,
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
    db: Db = None,
) -> None:
    """Publish a run's checkpoint or collections on the hub, with a card made from the ledger."""
    from rilbench import publish
    from rilbench.ledger import Ledger

    folder = Path(run) if Path(run).is_dir() else runs / run
    trained = publish.read_run(folder)
    if collections:
        card = publish.collection_card(to, trained)
    else:
        with Ledger.open_read(ledger_to_read(db)) as ledger:
            card = publish.model_card(to, trained, publish.evaluations_of(trained, ledger))
    if dry_run:
        typer.echo(card)
        return
    url = publish.push(trained, to, card, collections=collections, private=not public)
    typer.echo(f"published: {url}")
