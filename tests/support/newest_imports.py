"""Import every module of a package, and print what fails as JSON: cause to modules.

``python newest_imports.py PACKAGE [ABSENT …]``: a module that lacks one of the absent packages, or
a toolkit's worker, which runs elsewhere, is no failure. For `newest`, in the environment to try.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
import sys

ELSEWHERE = re.compile(r"_worker$|lmmseval_patches$|lmmseval_data$|vlmevalkit_data$|__main__$")


def main() -> None:
    """Import, and print."""
    package, *absent = sys.argv[1:]
    causes: dict[str, list[str]] = {}
    for found in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        if ELSEWHERE.search(found.name):
            continue
        try:
            importlib.import_module(found.name)
        except Exception as error:  # noqa: BLE001  # whatever a new release does
            missing = (isinstance(error, ModuleNotFoundError) and error.name) or ""
            if missing.partition(".")[0] not in absent:
                causes.setdefault(f"{type(error).__name__}: {error}", []).append(found.name)
    sys.stdout.write(f"\n{json.dumps(causes)}\n")


if __name__ == "__main__":
    main()
