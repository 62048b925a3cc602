"""The recipe: every setting of a run, in one resolved, fingerprinted document.

A recipe is layered: the defaults of `rilbench.config.schema`, the file of the recipe
(``recipes/both.yaml``), the file of the student (``recipes/students/nano.yaml``), the file of the
hardware (``recipes/hardware/1x8-80gb.yaml``), and ``--set key=value``. The first two may be the
user's own, and the student may be a model's folder or hub name. `docs/paper.md` lists what the
paper leaves open and what was chosen.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml

from rilbench.config.schema import Hardware, Recipe, Student
from rilbench.config.validate import check
from rilbench.errors import UserError
from rilbench.resources import resource

RENAMED = {
    "group": "group_size",
    "own_samples": "num_samples",
    "schedule.questions": "schedule.prompts_per_step",
    "teachers.use": "teachers.max_responses",
    "policy.rate": "policy.lr",
    "policy.beta": "policy.kl_coef",
    "policy.clip": "policy.clip_eps",
    "policy.updates": "policy.mu",
    "policy.frozen": "policy.freeze",
    "policy.teacher_rows": "policy.teachers_in_loss",
    "policy.micro_rows": "policy.micro_batch_size",
    "policy.micro_tokens": "policy.micro_batch_tokens",
    "discriminator.rate": "discriminator.lr",
    "discriminator.updates": "discriminator.mu",
    "discriminator.micro_rows": "discriminator.micro_batch_size",
    "discriminator.micro_tokens": "discriminator.micro_batch_tokens",
    "discriminator.pretrain_rows": "discriminator.pretrain_batch_size",
    "discriminator.pretrain_rate": "discriminator.pretrain_lr",
    "discriminator.pretrain_final_rate": "discriminator.pretrain_final_lr",
    "sft.rows": "sft.batch_size",
    "sft.rate": "sft.lr",
    "sft.final_rate": "sft.final_lr",
    "judge.false_right": "judge.false_positive_rate",
    "judge.false_wrong": "judge.false_negative_rate",
}
"""Settings that had another name before 0.1.0: the error gives the new one."""

_FOLDERS = {
    "recipe": "recipes",
    "student": "recipes/students",
    "hardware profile": "recipes/hardware",
}


def known(kind: str) -> list[str]:
    """Names of the ``recipes``, ``students`` or ``hardware`` profiles that ship."""
    folder = "recipes" if kind == "recipes" else f"recipes/{kind}"
    return sorted(path.stem for path in resource(folder).glob("*.yaml"))


def load_recipe(
    recipe: str,
    student: str | None = None,
    method: str | None = None,
    overrides: Iterable[str] = (),
    hardware: str | None = None,
) -> Recipe:
    """Resolve a recipe: defaults, its file, the student's, the hardware's, then ``key=value``.

    Args:
        recipe: one that ships, or a YAML file.
        student: one that ships, a YAML file, or a model: its folder or ``OWNER/NAME`` on the hub;
            None: the recipe's, else the paper's.
        method: one of `METHODS`.
        overrides: settings.
        hardware: a profile; None: the one that a file names, else 1x8-80gb.

    Raises:
        UserError: an unknown recipe, student, hardware, method or key (with the known or nearest
            ones), a value of the wrong type, or settings that do not fit together.
    """
    values = _read("recipe", recipe)
    own = values.get("student", {})
    if student is not None:
        _merge(values, _student(student))
    elif not own.get("model"):
        _merge(values, _student(own.get("name") or Student().name))
    profile = hardware or values.get("hardware", {}).get("profile") or Hardware().profile
    machine = _read("hardware profile", profile)
    if hardware is None:  # what the user wrote wins over a profile that is not asked for
        for name in (recipe, student or ""):
            machine = _without(machine, _settings(Path(name)) if name.endswith(_YAML) else {})
    _merge(values, machine)
    values["recipe"] = Path(recipe).stem
    if method is not None:
        values["method"] = method
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise UserError(f"--set {override}: write it as key=value, e.g. schedule.steps=40")
        _set(values, key.strip(), _parse(text))
    built: Recipe = _build(Recipe, values, "")
    check(built)
    return built


def read_recipe(path: Path) -> Recipe:
    """Read a resolved recipe back from a run's ``recipe.yaml``.

    Raises:
        UserError: it is not there or not a resolved recipe.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read ({error}); is it a run's recipe.yaml?") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} is not a resolved recipe; start the run again under another name")
    built: Recipe = _build(Recipe, values, "")
    return built


def _read(kind: str, name: str) -> dict[str, Any]:
    """The settings in a file that ships, or in one of the user's.

    A file may say ``like: NAME``, or several names, and give what differs from them.
    """
    names = _shipped(kind)
    if name in names:
        path = resource(_FOLDERS[kind]) / f"{name}.yaml"
    elif name.endswith(_YAML) and kind != "hardware profile":
        path = Path(name)
    else:
        raise UserError(f"unknown {kind} {name!r}; known: {', '.join(names)}{_OWN[kind]}")
    own = _settings(path)
    like = own.pop("like", [])
    values: dict[str, Any] = {}
    for other in like if isinstance(like, list) else [like]:
        shipped = next((k for k in ("student", "recipe") if other in _shipped(k)), None)
        if shipped is None:
            raise UserError(
                f"{path}: like: {other} is neither a student nor a recipe; known: "
                f"{', '.join([*_shipped('student'), *_shipped('recipe')])}"
            )
        _merge(values, _read(shipped, other))
    _merge(values, own)
    return values


def _shipped(kind: str) -> list[str]:
    return sorted(path.stem for path in resource(_FOLDERS[kind]).glob("*.yaml"))


_YAML = (".yaml", ".yml")
_OWN = {
    "recipe": "; or give a YAML file",
    "student": "; or give a YAML file, a model's folder, its hub name OWNER/NAME",
    "hardware profile": "",
}


def _settings(path: Path) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read as YAML ({reason}); mend it") from error
    if not isinstance(loaded, dict):
        raise UserError(f"{path} holds no settings; write them as in recipes/students/nano.yaml")
    for group in ("student", "hardware"):
        if not isinstance(loaded.get(group, {}), dict):
            raise UserError(f"{path}: {group} is a group of settings, such as {group}: {{…}}")
    return loaded


def _student(name: str) -> dict[str, Any]:
    """A student's settings: its file's, or those of a model that no file is about."""
    is_model = "/" in name or Path(name).is_dir()
    if name in _shipped("student") or name.endswith(_YAML) or not is_model:
        return _read("student", name)
    # A path from here: a run that is resumed elsewhere would find another model, or none.
    model = str(Path(name).resolve()) if Path(name).is_dir() else name
    return {"student": {"name": Path(model).name.lower(), "model": model}}


def _merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def _without(values: Mapping[str, Any], written: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the settings that are not written elsewhere."""
    kept: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(written.get(key), Mapping):
            kept[key] = _without(value, written[key])
        elif key not in written:
            kept[key] = value
    return kept


def _parse(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):  # YAML 1.1 reads 1e-6 as text
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    parts = key.split(".")
    for part in parts[:-1]:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise UserError(f"--set {key}: {part} is a value, not a group of settings")
    values[parts[-1]] = value


def all_keys(cls: type = Recipe, prefix: str = "") -> list[str]:
    """Every settable key, dotted."""
    keys: list[str] = []
    for name, kind in get_type_hints(cls).items():
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            keys += all_keys(kind, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def _build(cls: Any, values: Mapping[str, Any], prefix: str) -> Any:
    hints = get_type_hints(cls)
    built: dict[str, Any] = {}
    for name, value in values.items():
        key = prefix + str(name)
        if key in RENAMED:
            raise UserError(f"the setting {key!r} is now {RENAMED[key]!r}")
        if name not in hints:
            near = difflib.get_close_matches(key, all_keys(), n=1, cutoff=0.0)
            raise UserError(f"there is no setting {key!r}; the nearest is {near[0]!r}")
        built[name] = _convert(hints[name], value, key)
    return cls(**built)


def _convert(kind: Any, value: Any, key: str) -> Any:
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise UserError(f"{key} is a group of settings; set one of them, e.g. {key}.…=…")
        return _build(kind, value, f"{key}.")
    origin = get_origin(kind)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(str(item) for item in value)
    if origin is not None and origin is not Union and isinstance(value, Mapping):
        return {str(k): str(v) for k, v in value.items()}
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind is str and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    wanted = getattr(kind, "__name__", str(kind)) if not get_args(kind) else str(kind)
    raise UserError(f"{key}={value!r} is not of type {wanted}")
