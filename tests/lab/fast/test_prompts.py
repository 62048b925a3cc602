"""Prompts computed once give what transformers gives: samples, log-probabilities, gradients."""

import io
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from rilbench.config import Sampling
from rilbench.data.question_files import read_questions
from rilbench.lab.fast.discriminator import Discriminator
from rilbench.lab.fast.prompts import Student, padded
from rilbench.model.batch_server import Request
from rilbench.model.generation import Generator
from rilbench.paths import locate
from rilbench.train.discriminator_texts import Texts

sys.path.insert(0, str(Path(__file__).parents[3] / "examples"))
import ril_minimal

SOURCES = ("MMStar", "BLINK", "ChartQA", "MM-Vet", "SEED")
MODELS = ("nano:72b", "nano:internvl")


@pytest.fixture(scope="module")
def questions():
    asked = read_questions(locate("nano:prompts.parquet"))
    return [next(q for q in asked if q.source == source) for source in SOURCES]


@pytest.fixture(scope="module", params=MODELS)
def path(request):
    return locate(request.param)


@pytest.fixture(scope="module")
def responses(path):
    """Three of each question: of one token, of a few, and longer."""
    tokenizer = Student(path).tokenizer
    texts = ["", "B", "The top row shows 3, 4 and the sum is 7. Answer: 7"]
    return [
        [*tokenizer.encode(text)[: 4 + 8 * i], tokenizer.eos_token_id]
        for i in range(len(SOURCES))
        for text in texts
    ]


def test_log_probabilities_and_gradient(path, questions, responses):
    student, rows = Student(path), torch.arange(len(questions)).repeat_interleave(3)
    shared, mask = student.log_probs(student.read(questions), rows, responses)
    models = ril_minimal.load_models(str(path))
    asked = [question for question in questions for _ in range(3)]
    plain, plain_mask = ril_minimal.response_log_probs(models, models.policy, asked, responses)
    assert torch.equal(mask, plain_mask)
    assert torch.allclose(shared[mask], plain[mask], atol=2e-5)
    weights = torch.linspace(-1, 1, mask.numel()).view(mask.shape)
    (shared * weights)[mask].sum().backward()
    (plain * weights)[mask].sum().backward()
    plain_gradient = dict(models.policy.named_parameters())
    largest = max(p.grad.abs().max() for p in plain_gradient.values())
    for name, parameter in student.model.named_parameters():
        difference = (parameter.grad - plain_gradient[name].grad).abs().max()
        assert difference < 1e-5 * largest, name


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_samples_are_those_of_the_rollout_server_and_of_transformers(path, questions, temperature):
    sampling = Sampling(temperature=temperature)
    seeds = [[100 * i + j for j in range(3)] for i in range(len(questions))]
    student = Student(path)
    sampled = student.sample(questions, seeds, sampling, 40)
    generator = Generator(str(path), 40)
    inputs = ril_minimal.prompt_inputs(ril_minimal.load_models(str(path)), questions)
    prompts = [
        ids[mask.bool()].tolist()
        for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
    ]
    values = {"temperature": temperature, "top_p": 0.95, "top_k": 50, "repetition_penalty": 1.05}
    requests = [
        Request(prompt, {**values, "seed": seed}, images_of(question), None)
        for prompt, question, own in zip(prompts, questions, seeds, strict=True)
        for seed in own
    ]
    served = generator.generate(requests)
    generator.decoder = None  # as for a model that it does not know
    expected = generator.generate(requests)
    assert served == expected
    assert [tokens for own in sampled for tokens in own] == [tokens for tokens, _ in expected]
    assert len({len(tokens) for tokens, _ in expected}) > 2, "responses end one after another"


def images_of(question):
    return [Image.open(io.BytesIO(image)) for image in question.images]


def test_a_batch_in_pieces_samples_the_same(path, questions, monkeypatch):
    seeds = [[i] for i in range(len(questions))]
    student = Student(path)
    whole = student.sample(questions, seeds, Sampling(), 20)
    monkeypatch.setattr("rilbench.lab.fast.prompts.ROWS_TOGETHER", 2)
    assert student.sample(questions, seeds, Sampling(), 20) == whole


def test_the_discriminator_reads_its_prompt_once(path):
    """Equal logits and gradient, and rows of equal text count as often as they come."""
    texts = ["B", "The top row shows 3, 4. Answer: B", "B", "<image> 7", "", "9 and 9"]
    models = ril_minimal.load_models(str(path))
    settings = {"lr": 1e-4, "weight_decay": 0.01, "max_grad_norm": 1.0}
    discriminator = Discriminator(path, models.tokenizer, **settings)
    shared, plain = (
        discriminator.logits(Texts(texts, torch.ones(6).bool())),
        ril_minimal.discriminator_logits(models, texts),
    )
    assert torch.allclose(shared, plain, atol=1e-5)
    weights = torch.linspace(-1, 2, len(texts))
    (shared * weights).sum().backward()
    (plain * weights).sum().backward()
    expected = dict(models.discriminator.named_parameters())
    largest = max(p.grad.abs().max() for p in expected.values())
    for name, parameter in discriminator.model.named_parameters():
        difference = (parameter.grad - expected[name].grad).abs().max()
        assert difference < 1e-5 * largest, name


def test_padded():
    tokens, mask = padded([[1, 2], [3]], 9)
    assert tokens.tolist() == [[1, 2], [3, 9]]
    assert mask.tolist() == [[True, True], [True, False]]
