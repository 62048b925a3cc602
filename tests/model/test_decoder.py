"""The lean decoder gives the hidden states of transformers' own forward."""

import pytest
import torch

from rilbench.data.question_files import read_questions
from rilbench.lab.fast.prompts import Student, padded
from rilbench.model.growing import Growing
from rilbench.paths import locate

LENGTHS = (4, 1, 9, 2, 6)


@pytest.fixture(scope="module")
def questions():
    """Of unequal lengths, so that all but one are padded on the left."""
    asked = read_questions(locate("nano:prompts.parquet"))
    sources = ("MMStar", "BLINK", "ChartQA", "MM-Vet")
    return [next(q for q in asked if q.source == source) for source in sources]


@pytest.fixture(scope="module", params=["nano:72b", "nano:internvl"])
def student(request):
    return Student(locate(request.param))


@pytest.fixture(scope="module")
def rows():
    """Not in the prompts' order, one twice and one left out."""
    return torch.tensor([2, 0, 3, 2, 0])


@pytest.fixture(scope="module")
def responses():
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(10, 600, (n,), generator=generator).tolist() for n in LENGTHS]


@pytest.fixture(scope="module")
def plain(student, questions, rows, responses):
    """Each row by itself, without padding, at positions that transformers finds."""
    found = []
    for row, tokens in zip(rows.tolist(), responses, strict=True):
        inputs = dict(student.inputs([questions[row]]))
        for name, more in (
            ("input_ids", torch.tensor([tokens])),
            ("attention_mask", torch.ones(1, len(tokens), dtype=torch.long)),
            ("mm_token_type_ids", torch.zeros(1, len(tokens), dtype=torch.long)),
        ):
            if name in inputs:
                inputs[name] = torch.cat([inputs[name], more], 1)
        with torch.no_grad():
            found.append(student.model.model(**inputs).last_hidden_state[0, -len(tokens) - 1 :])
    return found


@torch.no_grad()
def test_hidden_states_of_unequal_rows(student, questions, rows, responses, plain):
    prompts = student.read(questions)
    assert len(set(prompts.mask.sum(1).tolist())) > 2, "prompts are padded"
    last = prompts.last_hidden[rows]
    assert torch.allclose(last, torch.stack([hidden[0] for hidden in plain]), atol=2e-5)
    tokens, mask = padded(responses, 0)
    found = student.decoder.go_on(prompts, rows, tokens, mask)
    assert torch.allclose(found, torch.cat([hidden[1:] for hidden in plain]), atol=2e-5)
    ends = student.decoder.go_on(prompts, rows, tokens, mask, last_only=True)
    assert torch.allclose(ends, torch.stack([hidden[-1] for hidden in plain]), atol=2e-5)


@torch.no_grad()
def test_rows_that_grow_and_are_left_out(student, questions, rows, responses, plain):
    growing = Growing(student.decoder, student.read(questions), rows, max(LENGTHS))
    alive = list(range(len(rows)))
    for place in range(max(LENGTHS)):
        kept = [i for i, row in enumerate(alive) if LENGTHS[row] > place]
        if len(kept) < len(alive):
            growing.keep(torch.tensor(kept))
            alive = [alive[i] for i in kept]
        found = growing.add(torch.tensor([responses[row][place] for row in alive]))
        expected = torch.stack([plain[row][place + 1] for row in alive])
        assert torch.allclose(found, expected, atol=2e-5)
