"""A small model over HTTP: what is answered together is what is answered alone."""

import asyncio
import base64
import json

import pytest

from rilbench.data.question_files import read_questions
from rilbench.paths import locate
from rilbench.serving import ChatClient, Sampling, image_part, serve, text_part

SAMPLING = Sampling(
    max_tokens=24, temperature=1.0, top_p=0.95, top_k=50, extra={"repetition_penalty": 1.05}
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    log = tmp_path_factory.mktemp("server") / "log"
    with serve(locate("nano:72b"), log=log, batches=True) as started:
        assert not started.transformers
        yield started


@pytest.fixture(scope="module")
def conversations():
    """With one picture, with two, and without one."""
    asked = read_questions(locate("nano:prompts.parquet"))
    questions = [next(q for q in asked if q.source == s) for s in ("MMStar", "BLINK", "ChartQA")]
    found = []
    for question in questions:
        parts = [text_part(p) if isinstance(p, str) else image_part(p) for p in question.parts]
        found.append([{"role": "user", "content": parts}])
    return [*found, [{"role": "user", "content": "What is 7?"}]]


def answers(server, conversations, seeds, concurrency):
    """The responses to each conversation, one for each seed."""
    requests = [
        ((i, seed), conversation, SAMPLING.__class__(**{**vars(SAMPLING), "seed": seed}))
        for i, conversation in enumerate(conversations)
        for seed in seeds
    ]

    async def ask():
        found = {}
        client = ChatClient(server.base_url, server.model, concurrency=concurrency)
        async with client:
            async for key, completions in client.complete_all(iter(requests)):
                found[key] = completions[0]
        return found

    return asyncio.run(ask())


def test_responses_depend_on_their_seed_alone(server, conversations):
    together = answers(server, conversations, range(4), 64)
    alone = answers(server, conversations, range(4), 1)
    assert len(together) == 16
    assert {key: c.text for key, c in together.items()} == {k: c.text for k, c in alone.items()}
    assert len({c.text for c in together.values()}) > 4, "seeds give different responses"
    for completion in together.values():
        assert completion.finish_reason in ("stop", "length")
        assert 0 < completion.completion_tokens <= 24
        assert completion.prompt_tokens > 0
        assert "<|" not in completion.text


def test_what_it_cannot_read_is_refused_and_the_server_goes_on(server, conversations):
    import httpx

    not_a_picture = "data:image/png;base64," + base64.b64encode(b"no picture").decode()
    for url in (not_a_picture, "http://example.org/picture.png"):
        content = [{"type": "image_url", "image_url": {"url": url}}]
        body = {"model": server.model, "messages": [{"role": "user", "content": content}]}
        reply = httpx.post(f"{server.base_url}/chat/completions", json=body, timeout=60)
        assert reply.status_code == 400, reply.text
        assert "cannot read it" in json.loads(reply.text)["error"]["message"]
    assert answers(server, conversations[:1], [0], 1)[0, 0].text
