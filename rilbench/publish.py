"""Publish a run on the hub: its checkpoint, or its collections, with a card that says what it is.

``rilbench push``. The card is made from the run's folder and the ledger alone: method, settings,
data, scores with their provenance, and what differs from the paper.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from rilbench.checkpoint import Checkpoint, inspect_checkpoint
from rilbench.config import Recipe, load_recipe, read_recipe
from rilbench.config.load import all_keys
from rilbench.config.schema import may_change
from rilbench.data.manifest import SETTINGS, Manifest, kept_manifests, manifest_of
from rilbench.errors import UserError
from rilbench.hub import upload_folder
from rilbench.ledger import Evaluation, Ledger
from rilbench.paths import public_name

_OURS = (
    "data.train",
    "data.dev",
    "data.manifests",
    "sft.data",
    "collection.folder",
    "collection.endpoints",
    "collection.price",
    "collection.serve",
    "judge.url",
    "student.",
    "teachers.models",
    "hardware.",
)
"""Settings that are the user's own in any case: no differences to a shipped recipe."""


@dataclass(frozen=True)
class TrainedRun:
    """A finished run, as its folder has it."""

    folder: Path
    recipe: Recipe
    """With the paths of this machine; `public_recipe` has none."""
    checkpoint: Checkpoint
    manifests: Mapping[str, Sequence[Manifest]]
    """Of its questions, by `rilbench.data.manifest.SETTINGS`, as they were when it began."""

    @property
    def steps(self) -> int:
        """The step that was exported."""
        export = json.loads((self.checkpoint.path / "export.json").read_text(encoding="utf-8"))
        return int(export["step"])


def read_run(folder: Path) -> TrainedRun:
    """Read a finished run.

    Raises:
        UserError: it is no run's folder, or its student is not exported yet.
    """
    if not (folder / "recipe.yaml").is_file():
        raise UserError(f"{folder} is not the folder of a run; give its name, or its folder")
    if not (folder / "checkpoint" / "export.json").is_file():
        raise UserError(
            f"{folder} has no exported checkpoint; finish it with rilbench train --run "
            f"{folder.name} --resume"
        )
    recipe = read_recipe(folder / "recipe.yaml")
    checkpoint = inspect_checkpoint(folder / "checkpoint")
    return TrainedRun(folder, recipe, checkpoint, kept_manifests(folder))


def evaluations_of(run: TrainedRun, ledger: Ledger) -> list[Evaluation]:
    """The newest evaluation of the run's checkpoint on each suite and with each kit."""
    newest: dict[tuple[str, str], Evaluation] = {}
    for evaluation in sorted(ledger.evaluations(), key=lambda evaluation: evaluation.moment):
        if evaluation.fingerprint == run.checkpoint.fingerprint:
            newest[evaluation.suite, evaluation.kit] = evaluation
    return list(newest.values())


def model_card(name: str, run: TrainedRun, evaluations: Sequence[Evaluation]) -> str:
    """The ``README.md`` of a published checkpoint.

    Args:
        name: ``owner/name``.
        run: what was trained.
        evaluations: its scores.
    """
    recipe, labels = public_recipe(run.recipe), run.checkpoint.labels
    teachers = " and ".join(recipe.teachers.models.get(n, n) for n in recipe.teachers.names)
    by = f"`{labels.method}`{f' with responses of {teachers}' if teachers else ''}"
    parts = [
        "---\n" + yaml.safe_dump(_front_matter(name, run, evaluations), sort_keys=False) + "---",
        f"# {name.split('/')[-1]}",
        f"{recipe.student.model}, trained for {run.steps} steps by "
        f"{by} with rilbench, an open implementation of RIL (Unified Reinforcement and Imitation "
        "Learning for Vision-Language Models, NeurIPS 2025, arXiv 2510.19307).",
        "```python\nfrom transformers import AutoModelForImageTextToText, AutoProcessor\n\n"
        f'model = AutoModelForImageTextToText.from_pretrained("{name}", dtype="auto")\n'
        f'processor = AutoProcessor.from_pretrained("{name}")\n```',
        "## Scores\n\n" + _score_tables(evaluations),
        "## Training\n\n" + _training(run, recipe),
        "## Data\n\n" + _data(run),
        "## Differences to the paper\n\n" + _differences(recipe),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(name: str, run: TrainedRun, evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """What the hub reads of a card."""
    sources = [
        source
        for manifest in _all_manifests(run)
        for source in manifest.values["recipe"]["sources"].values()
    ]
    results = [
        {
            "task": {"type": "image-text-to-text"},
            "dataset": {"name": score.benchmark, "type": score.dataset},
            "metrics": [{"type": score.metric, "value": round(score.value, 2)}],
            "source": {"name": f"rilbench, {score.kit} {score.kit_version}", "url": "README.md"},
        }
        for evaluation in evaluations
        if evaluation.suite == "paper"
        for score in evaluation.scores
        if score.value is not None and not score.partial
    ]
    values: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "image-text-to-text"}
    values["tags"] = ["rilbench", run.checkpoint.labels.method]
    base = public_recipe(run.recipe).student.model
    if "/" in base:  # a name on the hub
        values["base_model"] = base
    if hubs := sorted({source["hub"] for source in sources if source["hub"]}):
        values["datasets"] = hubs
    if results:
        values["model-index"] = [{"name": name.split("/")[-1], "results": results}]
    return values


def _score_tables(evaluations: Sequence[Evaluation]) -> str:
    """A table for each evaluation, below what it is of."""
    if not evaluations:
        return "None is in the ledger."
    parts = []
    for evaluation in evaluations:
        kits = sorted({f"{score.kit} {score.kit_version}" for score in evaluation.scores})
        what = "published benchmarks" if evaluation.suite == "paper" else "synthetic stand-ins"
        lines = [
            f"Suite `{evaluation.suite}` ({what}), {', '.join(kits)}, {evaluation.created}.",
            "",
            "| benchmark | score | questions | without a verdict | judge | data |",
            "|---|---:|---:|---:|---|---|",
        ]
        for score in evaluation.scores:
            value = "-" if score.value is None else f"{score.value:.1f}"
            value += " (partial)" if score.partial else ""
            cells = (
                *(score.benchmark, value, score.questions, score.missing, score.judge or "-"),
                f"{score.data_state}, {score.data_sha256[:12]}",
            )
            lines.append(f"| {' | '.join(map(str, cells))} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _training(run: TrainedRun, recipe: Recipe) -> str:
    """The settings that readers look for; all are in ``recipe.yaml``."""
    labels = run.checkpoint.labels
    rows = {
        "steps": f"{run.steps} of {recipe.schedule.steps}",
        "prompts per step": recipe.schedule.prompts_per_step,
        "group size": recipe.group_size,
        "learning rate": recipe.policy.lr,
        "KL coefficient": recipe.policy.kl_coef,
        "judge": recipe.judge.model,
        "SFT steps before": recipe.sft.steps,
        "seed": recipe.seed,
        "recipe": labels.recipe_fingerprint,
        "student before training": labels.start_fingerprint,
        "checkpoint": run.checkpoint.fingerprint,
    }
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    return "\n".join(lines) + "\n\nAll settings are in [recipe.yaml](recipe.yaml)."


def _data(run: TrainedRun) -> str:
    """Where the questions are from."""
    parts = []
    for name, setting in SETTINGS.items():
        manifests = run.manifests.get(name, ())
        parts += [_built_data(setting, manifest) for manifest in manifests]
        built = {manifest.file.name for manifest in manifests}
        files = str(_value(public_recipe(run.recipe), setting)).split(",")
        if others := [file for file in files if file and file not in built and "*" not in file]:
            names = ", ".join(f"`{file}`" for file in others)
            parts.append(f"{setting}: questions of {names}; no manifest says where from.")
    return "\n\n".join(parts)


def _built_data(setting: str, manifest: Manifest) -> str:
    """A table of the sources of a set that ``rilbench data build`` made."""
    values, file = manifest.values, manifest_of(manifest.file).name
    lines = [
        f"{setting}: {values['questions']} questions, built as [{file}]({file}) says (digest "
        f"{manifest.digest}).",
        "",
        "| source | from | commit | licence stated there | questions |",
        "|---|---|---|---|---:|",
    ]
    for name, source in values["sources"].items():
        settings = values["recipe"]["sources"][name]
        cells = (
            *(name, settings["hub"] or "own files", source["revision"][:12]),
            *(source["license"] or "none", source["questions"]),
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _all_manifests(run: TrainedRun) -> list[Manifest]:
    return [manifest for some in run.manifests.values() for manifest in some]


def _differences(recipe: Recipe) -> str:
    """Settings that differ from the recipe that follows the paper."""
    usual = load_recipe(recipe.recipe) if recipe.recipe in ("72b", "78b", "both") else Recipe()
    lines = [
        f"| `{key}` | {_value(usual, key)} | {_value(recipe, key)} |"
        for key in all_keys()
        if (key == "schedule.steps" or not may_change(key))
        and not key.startswith(_OURS)
        and _value(usual, key) != _value(recipe, key)
    ]
    listed = "What the paper leaves open, and how rilbench decides it, is in its docs/paper.md."
    if not lines:
        return f"Every setting of the method is that of the paper's recipe. {listed}"
    head = ["| setting | the paper's recipe | this run |", "|---|---|---|"]
    return "\n".join([*head, *lines]) + f"\n\n{listed}"


def _value(recipe: Recipe, key: str) -> Any:
    value: Any = recipe
    for part in key.split("."):
        value = getattr(value, part)
    return value


def function_files(recipe: Recipe) -> dict[str, str]:
    """Where the Python files of a recipe's judge and rewards are published, by their paths here."""
    named = [name.rpartition(":")[0] for name in (recipe.judge.model, *recipe.reward.extra)]
    files: dict[str, str] = {}
    for file in (name for name in named if name.endswith(".py")):
        place = f"functions/{Path(file).name}"
        if place in files.values() and file not in files:
            place = f"functions/{len(files)}/{Path(file).name}"
        files.setdefault(file, place)
    return files


def public_recipe(recipe: Recipe) -> Recipe:
    """A run's settings without the addresses and folders of whoever trained it."""
    functions = function_files(recipe)

    def published(name: str) -> str:
        file, _, function = name.rpartition(":")
        return f"{functions[file]}:{function}" if file in functions else public_name(name)

    def files(names: str) -> str:
        return ",".join(public_name(name.strip()) for name in names.split(","))

    teachers, judge = recipe.teachers, recipe.judge
    models = {name: public_name(model, name) for name, model in teachers.models.items()}
    return replace(
        recipe,
        student=replace(
            recipe.student, model=public_name(recipe.student.model, recipe.student.name)
        ),
        teachers=replace(teachers, models=models),
        data=replace(recipe.data, train=files(recipe.data.train), dev=files(recipe.data.dev)),
        collection=replace(recipe.collection, endpoints={}, folder="", serve={}),
        sft=replace(recipe.sft, data=files(recipe.sft.data)),
        judge=replace(judge, model=published(judge.model), url=(), serve=""),
        reward=replace(recipe.reward, extra=tuple(map(published, recipe.reward.extra))),
        hardware=replace(recipe.hardware, ray_address=""),
    )


def collection_card(name: str, run: TrainedRun) -> str:
    """The ``README.md`` of published collections: which models answered, sampled how."""
    lines = [
        "---\n" + yaml.safe_dump({"tags": ["rilbench", "distillation"]}) + "---",
        f"# {name.split('/')[-1]}",
        "Saved responses of teachers (and of the student), collected by rilbench for RIL. A row is "
        "one response: `question_id`, `question_sha256` (of text and pictures), `model`, `sample`, "
        "`seed`, `response`, `tokens`, `finish_reason`.",
    ]
    for file in sorted(collection_folder(run).glob("*.json")):
        if file.with_suffix(".parquet").is_file():
            said = json.loads(file.read_text(encoding="utf-8"))
            said |= {"source": public_name(said["source"])} if "source" in said else {}
            text = json.dumps(said, indent=2, ensure_ascii=False)
            lines.append(f"## {file.stem}\n\n```json\n{text}\n```")
    lines.append("## Questions\n\n" + _data(run))
    return "\n\n".join(lines) + "\n"


def collection_folder(run: TrainedRun) -> Path:
    """Where a run's collections are."""
    chosen = run.recipe.collection.folder
    return Path(chosen) if chosen else run.folder / "collection"


def push(run: TrainedRun, name: str, card: str, *, collections: bool, private: bool) -> str:
    """Publish a run's checkpoint or collections with a card; return the repository's address.

    Raises:
        UserError: there is nothing to publish, or the hub refuses.
    """
    with _linked(run, card, collections=collections) as folder:
        kind = "dataset" if collections else "model"
        message = f"rilbench run {run.folder.name}, step {run.steps}"
        return upload_folder(folder, name, kind, message, private=private)


@contextmanager
def _linked(run: TrainedRun, card: str, *, collections: bool) -> Iterator[Path]:
    """A folder with links to what is published: weights are not copied."""
    files = (
        sorted(collection_folder(run).glob("*.parquet"))
        if collections
        else sorted(path for path in run.checkpoint.path.iterdir() if path.is_file())
    )
    if not files:
        raise UserError(f"{collection_folder(run)} has no collection; there is nothing to publish")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for file in files:
            (folder / file.name).symlink_to(file.resolve())
        (folder / "README.md").write_text(card, encoding="utf-8")
        text = public_recipe(run.recipe).to_yaml()
        (folder / "recipe.yaml").write_text(text, encoding="utf-8")
        for name, place in function_files(run.recipe).items():
            if Path(name).is_file():
                (folder / place).parent.mkdir(parents=True, exist_ok=True)
                (folder / place).symlink_to(Path(name).resolve())
        for manifest in _all_manifests(run):
            text = json.dumps(manifest.values, indent=2, ensure_ascii=False)
            file = folder / manifest_of(manifest.file).name
            file.write_text(text + "\n", encoding="utf-8")
        yield folder
