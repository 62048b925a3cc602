"""When two evaluations are the same one, or two imports of the same model.

The rule is the same for `rilbench import` and `rilbench ledger merge`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from rilbench.ledger.records import Evaluation


def identity(evaluation: Evaluation) -> tuple[object, ...]:
    """Return what no two evaluations share.

    An import is known by its labels and its files' content, wherever they are; an evaluation that
    rilbench made, by its model and time.
    """
    labels = (evaluation.suite, evaluation.student, evaluation.method, evaluation.teacher)
    imported = evaluation.settings.get("imported")
    if imported is None:
        return (*labels, evaluation.fingerprint, evaluation.created, evaluation.commit)
    return (*labels, imported.get("model"), imported.get("sha256"), *sorted(_digests(evaluation)))


def identified(
    evaluation: Evaluation, recorded: Sequence[Evaluation], *, by_place: bool
) -> tuple[Evaluation, Evaluation | None]:
    """Return an import with the fingerprint of its model, and a recorded one of equal name.

    Another kit's results of the only model of a name are of the same model. The second value is an
    evaluation of another model that has this name too; None if there is none.

    Args:
        evaluation: an import without weights; its model is known by name and files.
        recorded: the ledger's evaluations of the same suite.
        by_place: whether results in the same folder are of the same model; they need not be if
            the ledgers are of two machines.
    """
    imported, files = evaluation.settings["imported"], _digests(evaluation)
    alike = [
        e for e in recorded if e.settings.get("imported", {}).get("model") == imported["model"]
    ]
    of_this_kit = [e for e in alike if e.kit == evaluation.kit]
    for other in of_this_kit:
        # A folder that was moved and grew has the old files too; one equal total says nothing.
        same_place = by_place and other.path == evaluation.path
        if same_place or files <= (old := _digests(other)) or old <= files:
            return dataclasses.replace(evaluation, fingerprint=other.fingerprint), None
    if by_place and not of_this_kit and len({e.fingerprint for e in alike}) == 1:
        return dataclasses.replace(evaluation, fingerprint=alike[0].fingerprint), None
    return evaluation, next(iter(of_this_kit), None)


def _digests(evaluation: Evaluation) -> set[str]:
    return {str(f["sha256"]) for f in evaluation.settings.get("imported", {}).get("files", ())}
