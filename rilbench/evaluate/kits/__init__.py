"""The kits."""

from rilbench.errors import UserError
from rilbench.evaluate.kits.base import Adapter
from rilbench.evaluate.kits.lmmseval import LmmsEval
from rilbench.evaluate.kits.vlmevalkit import VLMEvalKit

ADAPTERS: dict[str, Adapter] = {kit.name: kit for kit in (VLMEvalKit(), LmmsEval())}
"""Every kit by its name."""


def find_kit(name: str) -> Adapter:
    """Return a kit.

    Raises:
        UserError: there is none of that name.
    """
    if name not in ADAPTERS:
        raise UserError(f"no kit {name!r}; there is {', '.join(ADAPTERS)}")
    return ADAPTERS[name]
