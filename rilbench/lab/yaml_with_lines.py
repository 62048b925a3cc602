"""Reads YAML so that every error names the line at fault."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import yaml

from rilbench.errors import UserError

Scalar = str | int | float | bool


class LineReader:
    """Values of one YAML file; every method raises UserError as ``FILE:LINE: what is wrong``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def root(self) -> yaml.Node:
        """Parse the file."""
        try:
            node = yaml.compose(self.path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be read ({error.strerror}); check its path"
            ) from error
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise UserError(f"{self.path}:{line}: this is not YAML: {error.problem}") from error
        if node is None:
            raise UserError(f"{self.path}:1: the file is empty; see docs/lab.md for the format")
        return node

    def fail(self, node: yaml.Node, message: str) -> NoReturn:
        """Refuse the file because of this node."""
        raise UserError(f"{self.path}:{node.start_mark.line + 1}: {message}")

    def items(
        self, node: yaml.Node, what: str, known: tuple[str, ...] | None = None
    ) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Return key → nodes of key and value; refuse a repeated key and one not in ``known``."""
        if not isinstance(node, yaml.MappingNode):
            self.fail(node, f"{what} must be a mapping of names to values")
        items: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            if key in items:
                self.fail(key_node, f"{key!r} is given twice in {what}")
            if known is not None and key not in known:
                self.fail(key_node, f"{what} has no {key!r}; it may have {', '.join(known)}")
            items[key] = (key_node, value_node)
        return items

    def mapping(
        self, node: yaml.Node, what: str, known: tuple[str, ...] | None = None
    ) -> dict[str, yaml.Node]:
        """Return key → node of the value; see `items`."""
        return {key: value for key, (_, value) in self.items(node, what, known).items()}

    def sequence(self, node: yaml.Node, what: str) -> list[yaml.Node]:
        """Return the items of a list that must not be empty."""
        if not isinstance(node, yaml.SequenceNode):
            self.fail(node, f"{what} must be a list")
        if not node.value:
            self.fail(node, f"{what} must not be empty")
        return list(node.value)

    def scalar(self, node: yaml.Node, what: str) -> Scalar:
        """Return a single value; ``1e-4``, which YAML 1.1 reads as text, is a number."""
        if not isinstance(node, yaml.ScalarNode):
            self.fail(node, f"{what} must be a single value")
        value = yaml.SafeLoader("").construct_object(node)
        if isinstance(value, str):
            try:
                return float(value)
            except ValueError:
                return value
        if not isinstance(value, bool | int | float):
            self.fail(node, f"{what} must be a text or a number")
        return value

    def text(self, node: yaml.Node, what: str) -> str:
        """Return a text as it is written, numbers too (a teacher may be called ``72``)."""
        if not isinstance(node, yaml.ScalarNode) or not node.value:
            self.fail(node, f"{what} must be a text")
        return str(node.value)

    def integer(self, node: yaml.Node, what: str, least: int) -> int:
        """Return a whole number that is at least ``least``."""
        value = self.scalar(node, what)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self.fail(node, f"{what} must be a whole number, {least} or more")
        return value
