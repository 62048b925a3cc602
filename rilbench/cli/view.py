"""``rilbench view``."""

from __future__ import annotations

import ipaddress
from typing import Annotated

import typer

from rilbench.cli.options import Db, ledger_to_read


def view(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 0,
    host: Annotated[
        str, typer.Option(help="Address to listen on; another than this shows it to others.")
    ] = "127.0.0.1",
    db: Db = None,
) -> None:
    """Serve the ledger to a browser: table, questions, runs in progress. Reads only."""
    from rilbench.view.server import serve

    path = ledger_to_read(db)

    def say(address: str) -> None:
        typer.echo(f"{path} at {address} (Ctrl-C ends it)")

    if host != "localhost" and not _is_loopback(host):
        typer.echo(f"rilbench: everybody who can reach {host} can read {path}", err=True)
    serve(path, host, port, say)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
