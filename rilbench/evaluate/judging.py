"""Who decides free text: the judge at an address, or the project's exact one."""

from collections.abc import Iterator
from contextlib import contextmanager

from rilbench.errors import UserError
from rilbench.serving import first_model


def judge_name(url: str | None) -> str:
    """Return the judge's name as its server reports it; None stands for the exact judge.

    Raises:
        UserError: nothing answers there.
    """
    # Here, not above: the exact judge brings a web server with it.
    from rilbench.judge.server import RULE_JUDGE

    if url is None:
        return RULE_JUDGE
    try:
        return first_model(url)
    except UserError as error:
        raise UserError(
            f"no judge: {error}; start it, or leave it out for the exact one"
        ) from error


@contextmanager
def judge_server(url: str | None) -> Iterator[str]:
    """Yield the judge's address up to ``/v1``; the exact judge is started for the block."""
    from rilbench.judge.server import rule_judge

    if url is not None:
        yield url.rstrip("/")
        return
    with rule_judge() as started:
        yield started
