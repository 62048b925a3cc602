"""An installed package with one entry point, in a folder that is put on the import path."""

import sys
from pathlib import Path

import pytest


def install_plugin(
    monkeypatch: pytest.MonkeyPatch, folder: Path, group: str, name: str, code: str
) -> str:
    """Write a module ``NAME_plugin`` whose ``plugin`` is the entry point ``name`` of ``group``.

    It is found here and in processes that are started here. Returns the package's name; its version
    is 1.2.
    """
    module = f"{name}_plugin"
    (folder / f"{module}.py").write_text(code, encoding="utf-8")
    info = folder / f"{module}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}:plugin\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.delitem(sys.modules, module, raising=False)
    return module
