import asyncio
import io
from dataclasses import asdict

import pytest
import torch
from PIL import Image
from transformers import (
    AutoProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from verl.workers.rollout.replica import TokenOutput

from rilbench.data.question_files import read_questions
from rilbench.judge.rules import is_right
from rilbench.model.batch_server import BatchServer, Response
from rilbench.model.sampling import Nucleus, SeededSampling
from rilbench.paths import locate


@pytest.mark.parametrize(("k", "p"), [(50, 0.95), (3, 0.5), (-1, 0.9), (5, 1.0), (1000, 0.95)])
def test_nucleus_keeps_what_transformers_keeps(k, p):
    logits = 3 * torch.randn(64, 200, generator=torch.Generator().manual_seed(0))
    logits[:, :4] = -torch.inf  # suppressed
    expected = logits
    if k > 0:
        expected = TopKLogitsWarper(k)(torch.zeros(64, 1), expected)
    if p < 1:
        expected = TopPLogitsWarper(p)(torch.zeros(64, 1), expected)
    assert torch.equal(Nucleus(k, p)(torch.zeros(64, 1), logits), expected)


def test_a_row_draws_the_same_token_wherever_it_stands():
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    seeds = [11, 12, 13, 14]
    together = SeededSampling(seeds)(torch.zeros(4, 1), logits).argmax(-1)
    order = [2, 0, 3, 1]
    shuffled = SeededSampling([seeds[i] for i in order])(torch.zeros(4, 1), logits[order])
    alone = [
        SeededSampling([seed])(torch.zeros(1, 1), logits[i : i + 1]).argmax().item()
        for i, seed in enumerate(seeds)
    ]
    assert shuffled.argmax(-1).tolist() == [together[i].item() for i in order]
    assert together.tolist() == alone


def test_draws_follow_the_softmax():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -torch.inf])
    n = 20_000
    drawn = SeededSampling(list(range(n)))(torch.zeros(n, 1), logits.expand(n, -1)).argmax(-1)
    share = torch.bincount(drawn, minlength=5) / n
    torch.testing.assert_close(share, logits.softmax(-1), atol=0.012, rtol=0)
    assert share[4] == 0, "a forbidden token is never drawn"


def test_successive_tokens_of_a_row_are_independent_draws():
    sampler = SeededSampling([5])
    logits = torch.zeros(1, 1000)
    drawn = [sampler(torch.zeros(1, 1), logits).argmax().item() for _ in range(20)]
    assert len(set(drawn)) > 15


def test_questions_with_one_and_with_two_pictures_share_a_batch():
    """The server waits for a full batch; a batch must not fall apart by what is in it."""
    processor = AutoProcessor.from_pretrained(locate("nano:72b"))
    asked = read_questions(locate("nano:prompts.parquet"))
    questions = [q for q in asked if q.source in ("MMStar", "BLINK")][:4]
    assert {len(q.images) for q in questions} == {1, 2}

    def request(question):
        images = [Image.open(io.BytesIO(image)) for image in question.images]
        marked = question.marked.replace("<image>", "<|vision_start|><|image_pad|><|vision_end|>")
        text = f"<|im_start|>user\n{marked}<|im_end|>\n<|im_start|>assistant\n"
        ids = processor(text=[text], images=images)["input_ids"][0]
        return list(ids), {"temperature": 0.0}, "id", images

    async def answers(size):
        server = BatchServer(str(locate("nano:72b")), size, 48)
        server.generator.forbidden = []
        sizes = []
        make = server.generator.generate
        server.generator.generate = lambda batch: sizes.append(len(batch)) or make(batch)
        jobs = [server.generate(*request(question)) for question in questions]
        outputs = await asyncio.gather(*jobs)
        return [processor.tokenizer.decode(o.token_ids) for o in outputs], sizes

    together, sizes = asyncio.run(answers(len(questions)))
    assert sizes == [len(questions)]
    alone, _ = asyncio.run(answers(1))
    assert together == alone
    assert all("Answer:" in text for text in together)
    right = [
        is_right(q.answer, text.split("<|")[0]) for q, text in zip(questions, together, strict=True)
    ]
    assert sum(right) >= 3, "most answers are right, so the pictures were seen"


def test_a_response_has_the_fields_that_verl_reads():
    response = Response([1, 2], "length", {})
    expected = TokenOutput(token_ids=[1, 2], stop_reason="length", extra_fields={})
    assert asdict(response) == expected.model_dump()
