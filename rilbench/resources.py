"""Files that belong to the project but are not Python: recipes, the paper's tables, lock files.

They are at the top of the repository, where people look for them. The wheel has a copy of them in
``rilbench/_resources``.
"""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def resource(name: str) -> Path:
    """Return the path of a project file such as ``recipes/both.yaml``.

    Raises:
        FileNotFoundError: the installation is broken: neither the wheel nor the checkout has it.
    """
    for root in (_PACKAGE / "_resources", _PACKAGE.parent):
        if (root / name).exists():
            return root / name
    raise FileNotFoundError(f"rilbench was installed without {name}; install it again")
