"""Packages of the extras, which a plain installation does not have."""

from importlib.util import find_spec

from rilbench.errors import UserError

EXTRAS = {
    "train": (
        "torch",
        "torchvision",
        "transformers",
        "verl",
        "ray",
        "transfer_queue",
        "tensordict",
        "peft",
        "tokenizers",
        "hydra",
        "omegaconf",
        "filelock",
    ),
    "lab": ("matplotlib",),
    "parser": ("math_verify", "sympy"),
}
"""The modules that each extra installs and that rilbench imports; ``lab`` includes ``train``, which
includes ``parser``.
"""


def require(extra: str, purpose: str) -> None:
    """Check that an extra is installed, without importing its packages.

    Args:
        extra: a key of `EXTRAS`.
        purpose: what needs it, as the subject of the error's sentence.

    Raises:
        UserError: with the command that installs it.
    """
    modules = EXTRAS[extra] + (EXTRAS["train"] if extra == "lab" else ())
    for module in modules:
        if find_spec(module) is None:
            raise UserError(_message(purpose, module, extra))


def explain_missing(error: ModuleNotFoundError) -> str | None:
    """Return what to install for an import that failed; None if it is of no extra."""
    module = (error.name or "").partition(".")[0]
    for extra, modules in EXTRAS.items():
        if module in modules:
            return _message("this command", module, extra)
    return None


def _message(purpose: str, module: str, extra: str) -> str:
    return f"{purpose} needs {module}, which is not installed; pip install 'rilbench[{extra}]'"
