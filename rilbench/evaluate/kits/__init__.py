"""The evaluation toolkits (kits) that score the benchmarks."""

from rilbench.errors import UserError
from rilbench.evaluate.kits.base import Adapter
from rilbench.evaluate.kits.lmmseval import LmmsEval
from rilbench.evaluate.kits.vlmevalkit import VLMEvalKit

ADAPTERS: dict[str, Adapter] = {kit.name: kit for kit in (VLMEvalKit(), LmmsEval())}
"""Every kit by its name."""


def find_kit(name: str) -> Adapter:
    """Return a kit.

    Raises:
        UserError: no kit has this name.
    """
    if name not in ADAPTERS:
        raise UserError(f"unknown kit {name!r}; choose from {', '.join(ADAPTERS)}")
    return ADAPTERS[name]
