"""Folders of VLMEvalKit, most of them written by the kit itself."""

import pytest

from rilbench.evaluate.suite import find_suite
from rilbench.imports.folder import files_below, read_folder

NANO = find_suite("nano")


def read(folder, suite=NANO):
    return read_folder(files_below(folder), suite)


def test_scores_are_those_of_rilbench(vlmevalkit, own_scores, answers):
    found = read(vlmevalkit)
    (model,) = found.models
    assert (model.kit, model.model, model.folder) == ("vlmevalkit", "model", vlmevalkit)
    for f in found.skipped:
        print(f)
    for r in model.datasets.values():
        print(
            r.dataset.name,
            r.value,
            own_scores[r.dataset.name].value,
            r.judge,
            r.missing,
            own_scores[r.dataset.name].missing,
            r.notes,
            len(r.questions),
        )
    assert set(model.datasets) == set(answers) - {"MMVetV2"}
    for name, result in model.datasets.items():
        own = own_scores[name]
        assert result.value == pytest.approx(own.value, abs=1e-9), name
        assert {q.question_id: q.score for q in result.questions} == {
            o.question_id: o.value for o in own.outcomes
        }, name
