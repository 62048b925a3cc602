"""Rows of the ledger as its records. A row of which none can be made is damaged.

SQLite's own checks see pages and references, but not a byte that has changed within a value: text
that is no text any more, broken JSON, a count that contradicts another.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from types import MappingProxyType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from rilbench.ledger.identity import identity
from rilbench.ledger.records import Evaluation, Reading, Run, Sample, Score

Record = TypeVar("Record", Evaluation, Reading, Run, Sample, Score)

_PARSERS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        **dict.fromkeys(("settings", "metrics", "curves"), json.loads),
        "dirty": {0: False, 1: True}.get,
    }
)
"""What makes a field's value of a column's, where it is another."""
_KINDS: Mapping[str, Any] = MappingProxyType(
    {
        "runs": Run,
        "models": Evaluation,
        "evaluations": Evaluation,
        "scores": Score,
        "samples": Sample,
    }
)
"""The record that a table's row is, or is a part of."""
_OTHER_PART = {
    **dict.fromkeys(("path", "fingerprint", "student", "method", "teacher", "suite"), ""),
    "created": "1970-01-01T00:00:00+00:00",
}
"""The fields of an evaluation that either of its two rows lacks."""


class DamagedRowError(ValueError):
    """A row is no record; the message says why."""


def to_record(kind: type[Record], row: Mapping[str, Any], **parts: Any) -> Record:
    """Return the record of a row.

    Args:
        kind: the record's class.
        row: its columns.
        parts: fields that are not in the row.

    Raises:
        DamagedRowError: a value has another type, is broken JSON, or contradicts another one.
    """
    values = dict(row)
    try:
        for name in _PARSERS.keys() & values.keys():
            values[name] = _PARSERS[name](values[name])
    except (ValueError, TypeError) as error:
        raise DamagedRowError(f"{name}: {error}") from error
    record = _typed(kind, {**values, **parts})
    if isinstance(record, Evaluation):
        _require_settings(record)
    if isinstance(record, Run):
        for name, curve in record.curves.items():
            if not isinstance(curve, list):
                raise DamagedRowError(f"curves: {name} is no list")
    return record


def record_or_why(kind: type[Record], row: Mapping[str, Any], **parts: Any) -> Record | str:
    """Return the record of a row as `to_record` does, or what is wrong with the row."""
    try:
        return to_record(kind, row, **parts)
    except DamagedRowError as error:
        return str(error)


def require_readable(table: str, row: Mapping[str, Any]) -> None:
    """Check that a record can be made of a row and, of a model's or evaluation's, the other part.

    Raises:
        DamagedRowError: see `to_record`.
    """
    if (kind := _KINDS.get(table)) is None:
        return
    own = {field.name for field in dataclasses.fields(kind)}
    values = {name: value for name, value in row.items() if name in own}
    if kind is Evaluation:
        values = _OTHER_PART | values
    to_record(kind, values)


def _types(kind: type) -> dict[str, Any]:
    """Return what `isinstance` takes for each field."""
    return {
        name: hint | int  # JSON and SQLite may give a whole number.
        if float in get_args(hint)
        else hint
        if isinstance(hint, UnionType)
        else get_origin(hint) or hint
        for name, hint in get_type_hints(kind).items()
    }


_TYPES: Mapping[type, Mapping[str, Any]] = MappingProxyType(
    {kind: _types(kind) for kind in (Evaluation, Reading, Run, Sample, Score)}
)


def _typed(kind: type[Record], values: dict[str, Any]) -> Record:
    types = _TYPES[kind]
    for name, value in values.items():
        if name not in types or not isinstance(value, types[name]):
            what = "garbled text" if isinstance(value, bytes) else f"{value!r:.40}"
            raise DamagedRowError(f"{name}: {what}")
    try:
        return kind(**values)
    except (ValueError, TypeError) as error:
        raise DamagedRowError(str(error)) from error


def _require_settings(evaluation: Evaluation) -> None:
    """Check the settings by which evaluations are read and recognised."""
    try:
        for reading in evaluation.settings.get("reading", {}).values():
            _typed(Reading, dict(reading))
        hash(identity(evaluation))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DamagedRowError(f"settings: {error!r}") from error
