"""Load a recipe: every setting of a run, in one resolved, fingerprinted document.

A recipe is built in layers, and a later layer wins:

1. the defaults of `rilbench.config.schema`,
2. the recipe's file (``recipes/both.yaml``),
3. the student's file (``recipes/students/nano.yaml``),
4. the hardware profile (``recipes/hardware/1x8-80gb.yaml``),
5. ``--set key=value``.

Recipe and student may also be the user's own YAML files, the student also a model's folder, its
hub name, or a recipe of another installed package (`rilbench.plugins`).
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union, get_args, get_origin, get_type_hints

import yaml

from rilbench.config.schema import Hardware, Recipe, Student
from rilbench.config.validate import check
from rilbench.errors import UserError
from rilbench.plugins import load_plugins
from rilbench.resources import resource

if TYPE_CHECKING:
    from importlib.abc import Traversable

    File: TypeAlias = Path | Traversable

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
    "hardware.offload=between": "hardware.offload=idle",
}
"""Settings, and values of settings, that had another name before 0.1.0: the error gives the new
one.
"""

_KINDS = {
    # kind: (one of it, its folder, what else a user may give)
    "recipes": ("recipe", "recipes", "; or give a YAML file"),
    "students": (
        "student",
        "recipes/students",
        "; or give a YAML file, a model's folder, its hub name OWNER/NAME",
    ),
    "hardware": ("hardware profile", "recipes/hardware", ""),
    "runs": ("run file", "recipes/runs", "; or give a YAML file"),
}
_YAML = (".yaml", ".yml")
LARGEST = 2**32 - 1
"""The largest number of a setting: that of a seed, and more than a run has of anything."""


def load_recipe(
    recipe: str,
    student: str | None = None,
    method: str | None = None,
    overrides: Iterable[str] = (),
    hardware: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Recipe:
    """Resolve a recipe from its layers, and check it.

    Args:
        recipe: a name of ``known("recipes")``, or a YAML file.
        student: a name of ``known("students")``, a YAML file, or a model: its folder or
            ``OWNER/NAME`` on the hub; None: the recipe's, else the paper's.
        method: one of `METHODS`; None: the recipe's.
        overrides: settings as ``key=value``.
        hardware: a name of ``known("hardware")``; None: the one that a file names, else 1x8-80gb.
        settings: groups of settings of a run's file, which win over all but ``overrides``.

    Raises:
        UserError: an unknown recipe, student, hardware, method or key (with the known or nearest
            ones), a value of the wrong type, or settings that do not fit together.
    """
    values = _read("recipes", recipe)
    if student is None:
        named = values.get("student", {})
        if not named.get("model"):
            _merge(values, _student(named.get("name") or Student().name))
    else:
        _merge(values, _student(student))
    overrides = list(overrides)
    given = dict(map(parse_override, overrides)).get("hardware.profile")
    asked = given or (settings or {}).get("hardware", {}).get("profile") or hardware
    profile = asked or values.get("hardware", {}).get("profile") or Hardware().profile
    machine = _read("hardware", profile)
    if asked is None:
        # A file that sets a value knows better than a profile that nobody asked for.
        for kind, name in (("recipes", recipe), ("students", student or "")):
            file = _file(kind, name)
            machine = _without(machine, _parse_file(file) if file else {})
    _merge(values, machine)
    values["recipe"] = Path(recipe).stem
    if method is not None:
        values["method"] = method
    _merge(values, settings or {})
    for override in overrides:
        _set(values, *parse_override(override))
    built: Recipe = build_settings(Recipe, values, "")
    check(built)
    return built


def read_recipe(path: Path) -> Recipe:
    """Read a resolved recipe back from a run's ``recipe.yaml``.

    Raises:
        UserError: the file is missing or not a resolved recipe.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read ({error}); is it a run's recipe.yaml?") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} is not a resolved recipe; start the run again under another name")
    built: Recipe = build_settings(Recipe, values, "")
    return built


def known(kind: str) -> list[str]:
    """Names of ``recipes``, ``students`` (plug-ins' too), ``hardware`` profiles or ``runs``.

    Raises:
        UserError: a plug-in is broken, or provides a name that exists already.
    """
    return sorted(_files(kind))


def all_keys(cls: type = Recipe, prefix: str = "") -> list[str]:
    """Every setting's key, such as ``policy.lr``."""
    keys: list[str] = []
    for name, kind in get_type_hints(cls).items():
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            keys += all_keys(kind, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def _files(kind: str) -> dict[str, File]:
    """The YAML files of one kind, by name."""
    _, folder, _ = _KINDS[kind]
    files: dict[str, File] = {path.stem: path for path in resource(folder).glob("*.yaml")}
    for name, file in _plugin_students() if kind == "students" else ():
        if name in files:
            raise UserError(
                f"rilbench.students: the student {name!r} of {file} exists already "
                f"({files[name]}); rename or uninstall one"
            )
        files[name] = file
    return files


@functools.cache
def _plugin_students() -> tuple[tuple[str, File], ...]:
    """Name and file of each student that another installed package provides."""
    students: list[tuple[str, File]] = []
    for point, package in load_plugins("rilbench.students").items():
        if not hasattr(package, "__path__"):
            raise UserError(
                f"rilbench.students: {point!r} is not a package with YAML files; name the package "
                "in its entry point"
            )
        entries = resources.files(package).iterdir()
        files = [file for file in entries if file.name.endswith(".yaml")]
        if not files:
            raise UserError(
                f"rilbench.students: the package of {point!r} has no *.yaml; include them in its "
                "package data"
            )
        students += [(file.name.removesuffix(".yaml"), file) for file in files]
    return tuple(sorted(students, key=lambda student: student[0]))


def _file(kind: str, name: str) -> File | None:
    """The file behind a name, or the user's own file; None if there is neither."""
    file = _files(kind).get(name)
    if file is None and name.endswith(_YAML) and kind != "hardware":
        return Path(name)
    return file


def _read(kind: str, name: str, readers: tuple[str, ...] = ()) -> dict[str, Any]:
    """The settings of one file, merged into those of the files that it is ``like``."""
    file = _known_file(kind, name)
    written = _parse_file(file)
    like = written.pop("like", [])
    values: dict[str, Any] = {}
    for other in like if isinstance(like, list) else [like]:
        kinds = [kind for kind in ("students", "recipes") if other in known(kind)]
        if not kinds:
            raise UserError(
                f"{file}: like: {other} is neither a student nor a recipe; known: "
                f"{', '.join([*known('students'), *known('recipes')])}"
            )
        if other in (name, *readers):
            raise UserError(f"{file}: like: {other} leads back to itself; remove it")
        _merge(values, _read(kinds[0], other, (name, *readers)))
    _merge(values, written)
    return values


def parse_override(text: str) -> tuple[str, Any]:
    """A setting of the command line, ``key=value``, as key and value.

    Raises:
        UserError: it has no ``=``.
    """
    key, separator, value = text.partition("=")
    if not separator:
        raise UserError(f"--set {text}: write it as key=value, e.g. schedule.steps=40")
    return key.strip(), _parse_value(value)


def load_yaml(kind: str, name: str) -> dict[str, Any]:
    """The content of a file of ``known(kind)``, or of the user's own.

    Raises:
        UserError: there is none of that name, or it is not YAML, or no mapping.
    """
    return _load(_known_file(kind, name))


def _known_file(kind: str, name: str) -> File:
    file = _file(kind, name)
    if file is None:
        one, _, alternative = _KINDS[kind]
        raise UserError(f"unknown {one} {name!r}; known: {', '.join(known(kind))}{alternative}")
    return file


def _load(file: File) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); check its path") from error
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file} cannot be read as YAML ({reason}); fix it") from error
    if not isinstance(loaded, dict):
        raise UserError(f"{file} holds no settings; write them as in recipes/students/nano.yaml")
    return loaded


def _parse_file(file: File) -> dict[str, Any]:
    loaded = _load(file)
    for group in ("student", "hardware"):
        if not isinstance(loaded.get(group, {}), dict):
            raise UserError(f"{file}: {group} is a group of settings, such as {group}: {{…}}")
    return loaded


def _student(name: str) -> dict[str, Any]:
    """A student's settings: from its file, or for a model that has no file."""
    is_folder = Path(name).is_dir()
    if _file("students", name) or not (is_folder or "/" in name):
        return _read("students", name)
    # An absolute path: a run that is resumed from another folder must find the same model.
    model = str(Path(name).resolve()) if is_folder else name
    return {"student": {"name": Path(model).name.lower(), "model": model}}


def _merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def _without(values: Mapping[str, Any], written: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that ``written`` does not set."""
    kept: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(written.get(key), Mapping):
            kept[key] = _without(value, written[key])
        elif key not in written:
            kept[key] = value
    return kept


def _parse_value(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # a date or a number that cannot be one
        return text
    if isinstance(value, str):  # YAML 1.1 reads 1e-6 as text
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *groups, name = key.split(".")
    for group in groups:
        values = values.setdefault(group, {})
        if not isinstance(values, dict):
            raise UserError(f"--set {key}: {group} is a value, not a group of settings")
    values[name] = value


def build_settings(cls: Any, values: Mapping[str, Any], prefix: str) -> Any:
    """Build a dataclass of settings from values as YAML has them.

    Args:
        cls: the dataclass; fields may be dataclasses.
        values: by field.
        prefix: of the settings' names in messages, such as ``policy.``.

    Raises:
        UserError: a setting is unknown (with the nearest one) or of the wrong type.
    """
    hints = get_type_hints(cls)
    built: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        for setting in (key, f"{key}={value}"):
            if setting in RENAMED:
                raise UserError(f"the setting {setting!r} is now {RENAMED[setting]!r}")
        if name not in hints:
            near = difflib.get_close_matches(name, hints, n=1, cutoff=0.75)
            known_ones = (
                f"the settings of {prefix.rstrip('.') or 'a recipe'} are {', '.join(hints)}"
            )
            hint = f"the nearest is {prefix + near[0]!r}" if near else known_ones
            raise UserError(f"there is no setting {key!r}; {hint}")
        built[name] = _convert(hints[name], value, key)
    return cls(**built)


def _convert(kind: Any, value: Any, key: str) -> Any:
    """A value from YAML as the type of its setting."""
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise UserError(f"{key} is a group of settings; set one of them, e.g. {key}.…=…")
        return build_settings(kind, value, f"{key}.")
    origin, parts = get_origin(kind), get_args(kind)
    if origin is tuple:
        # One of several may be given alone.
        several = value if isinstance(value, (list, tuple)) else [value] if value != "" else []
        kinds = parts[:1] * len(several) if parts[-1] is Ellipsis else parts
        if len(several) == len(kinds):
            return tuple(_convert(*pair, key) for pair in zip(kinds, several, strict=True))
    if origin is not None and origin is not Union and isinstance(value, Mapping):
        return {str(k): _convert(parts[1], v, f"{key}.{k}") for k, v in value.items()}
    if kind is Any:
        return value
    # In Python true is an int, here it is not.
    accepted = {float: (int, float), bool: (bool,), int: (int,), str: (str, int, float)}.get(kind)
    if accepted and isinstance(value, accepted) and isinstance(value, bool) == (kind is bool):
        if not isinstance(value, str) and kind is not str and LARGEST < abs(value) < float("inf"):
            raise UserError(f"{key}={str(value)[:40]} is too large; give at most {LARGEST}")
        return kind(value)
    wanted = getattr(kind, "__name__", str(kind)) if not parts else str(kind)
    raise UserError(f"{key}={value!r} is not of type {wanted}")
