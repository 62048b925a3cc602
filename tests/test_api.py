"""The Python API: ``import rilbench``."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rilbench

HEAVY = "{'torch', 'verl', 'ray', 'transformers', 'pandas', 'numpy', 'yaml', 'typer'}"


def test_importing_the_package_imports_nothing_heavy(tmp_path):
    code = f"import sys, rilbench; print(sorted({HEAVY} & set(sys.modules)), rilbench.__version__)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.split() == ["[]", rilbench.__version__]


def test_the_api_needs_no_torch(tmp_path):
    code = (
        "import sys, rilbench; [getattr(rilbench, name) for name in rilbench.__all__]; "
        "print(sorted({'torch', 'verl', 'ray', 'transformers'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.strip() == "[]"


def test_every_name_resolves_to_what_its_module_has():
    assert sorted(rilbench.__all__) == sorted([*rilbench._MODULES, "__version__"])
    for name, module in rilbench._MODULES.items():
        value = getattr(rilbench, name)
        assert value is getattr(sys.modules[module], name)
    assert set(dir(rilbench)) == set(rilbench.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Leger'"):
        _ = rilbench.Leger


def test_type_checkers_see_the_same_names():
    source = Path(rilbench.__file__)
    (block,) = [node for node in ast.parse(source.read_text()).body if isinstance(node, ast.If)][:1]
    imported = {alias.name: node.module for node in block.body for alias in node.names}
    assert imported == rilbench._MODULES
    assert (source.parent / "py.typed").exists()
