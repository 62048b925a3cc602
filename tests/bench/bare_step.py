"""A step of the method in one process on transformers' modules, for ``tests/bench/step.py``.

No trainer, nothing saved: what the arithmetic costs where a prompt is computed once for all its
responses. Questions, responses and advantages are those of a run's last recorded step.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForImageTextToText, DynamicCache

from rilbench.data.question import Question
from rilbench.data.rollout_groups import RolloutGroup, training_steps
from rilbench.ril.discriminator import discriminator_loss, discriminator_tokens
from rilbench.ril.policy import policy_loss
from rilbench.train.verl.discriminator_model import load_discriminator

OWN, MAX_TOKENS, PARTS = 4, 48, 3  # of responses: batches by length, so that little is padded
Part = tuple[Tensor, Tensor, Tensor]  # places of N rows among all, tokens and mask (N, T)


@dataclass(frozen=True)
class Prompts:
    """Q prompts, padded on the left, as far as a response needs them."""

    ids: Tensor
    mask: Tensor
    cache: DynamicCache
    next_position: Tensor  # (Q,) of a response's first token
    last: Tensor  # (Q, H) hidden state at the prompt's last token

    def cache_of(self, rows: Tensor) -> DynamicCache:
        """Keys and values before responses to the prompts (N,)."""
        cache = DynamicCache()
        for number, layer in enumerate(self.cache.layers):
            cache.update(layer.keys[rows], layer.values[rows], number)
        return cache


def read_inputs(processor: Any, groups: Sequence[RolloutGroup]) -> dict[str, Tensor]:
    """What the processor makes of a step's questions."""
    asked = [Question(g.question_id, g.pictures, g.text, g.gold, "") for g in groups]
    write = processor.apply_chat_template
    texts = [write(each.chat, tokenize=False, add_generation_prompt=True) for each in asked]
    images = [Image.open(io.BytesIO(data)) for each in asked for data in each.images]
    return dict(processor(text=texts, images=images, return_tensors="pt", padding=True))


def read_prompts(model: Any, inputs: dict[str, Tensor]) -> Prompts:
    """Compute prompts with their pictures; with gradient unless it is off."""
    ids, mask, sizes = (inputs[k] for k in ("input_ids", "attention_mask", "image_grid_thw"))
    pictures = model.model.get_image_features(inputs["pixel_values"], sizes).pooler_output
    is_picture = (ids == model.config.image_token_id)[..., None]
    embedded = model.get_input_embeddings()(ids)
    embedded = embedded.masked_scatter(is_picture, torch.cat(list(pictures)))
    types, cache = inputs["mm_token_type_ids"], DynamicCache()
    positions, _ = model.model.get_rope_index(ids, types, sizes, attention_mask=mask)
    hidden = run(model.model.language_model, embedded, positions, mask, cache)
    return Prompts(ids, mask, cache, positions.amax((0, 2)) + 1, hidden[:, -1])


def run(body: Any, embedded: Tensor, positions: Tensor, mask: Tensor, cache: DynamicCache) -> Any:
    """Hidden states (N, T, H) of tokens that follow those of the cache."""
    places = {"position_ids": positions.expand(3, -1, -1), "attention_mask": mask}
    found = body(inputs_embeds=embedded, past_key_values=cache, use_cache=True, **places)
    return found.last_hidden_state


def follow(body: Any, prompts: Prompts, rows: Tensor, ids: Tensor, mask: Tensor) -> Any:
    """Hidden states (N, T, H) of responses (N, T) to the prompts (N,)."""
    positions = (prompts.next_position[rows, None] + torch.arange(ids.shape[1]))[None]
    seen = torch.cat([prompts.mask[rows], mask.long()], 1)
    return run(body, body.embed_tokens(ids), positions, seen, prompts.cache_of(rows))


def in_parts(tokens: Sequence[list[int]]) -> list[Part]:
    """Rows of tokens from the shortest to the longest, in `PARTS`."""
    order = torch.tensor(sorted(range(len(tokens)), key=lambda row: len(tokens[row])))
    found = []
    for places in order.tensor_split(PARTS):
        rows = [torch.tensor(tokens[place]) for place in places.tolist()]
        mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        found.append((places, pad_sequence(rows, batch_first=True), mask.bool()))
    return found


def log_probs(model: Any, prompts: Prompts, rows: Tensor, parts: Sequence[Part]) -> Tensor:
    """(n,) log-probabilities of all tokens of responses to the prompts (N,), part by part."""
    found = []
    for places, ids, mask in parts:
        own = rows[places]
        after = follow(model.model.language_model, prompts, own, ids[:, :-1], mask[:, :-1])
        hidden = torch.cat([prompts.last[own][:, None], after], 1)[mask]
        found.append(model.lm_head(hidden).log_softmax(-1).gather(-1, ids[mask][:, None])[:, 0])
    return torch.cat(found)


@torch.no_grad()
def sample(model: Any, prompts: Prompts, end: int) -> list[list[int]]:
    """Sample responses to all prompts; a finished one leaves the batch."""
    rows = torch.arange(len(prompts.ids)).repeat_interleave(OWN)
    responses: list[list[int]] = [[] for _ in rows]
    going, cache, body = torch.arange(len(rows)), prompts.cache_of(rows), model.model.language_model
    ids, mask, hidden = prompts.ids[rows], prompts.mask[rows], prompts.last[rows]
    repetition = transformers.RepetitionPenaltyLogitsProcessor(1.05)
    top_k, top_p = transformers.TopKLogitsWarper(50), transformers.TopPLogitsWarper(0.95)
    for place in range(MAX_TOKENS):
        scores = top_p(ids, top_k(ids, repetition(ids, model.lm_head(hidden))))
        chosen = scores.softmax(-1).multinomial(1)
        for row, token in zip(going.tolist(), chosen[:, 0].tolist(), strict=True):
            responses[row].append(token)
        kept = (chosen[:, 0] != end).nonzero()[:, 0]
        if not len(kept):
            break
        if len(kept) < len(going):
            cache.batch_select_indices(kept)
            going, ids, mask, chosen = going[kept], ids[kept], mask[kept], chosen[kept]
        ids, mask = torch.cat([ids, chosen], 1), torch.cat([mask, torch.ones_like(chosen)], 1)
        position = (prompts.next_position[rows[going]] + place)[None, :, None]
        hidden = run(body, body.embed_tokens(chosen), position, mask, cache)[:, -1]
    return responses


def discriminator_logits(model: Any, tokens: Sequence[list[int]]) -> Tensor:
    """(N,) logits of the discriminator; the beginning of all rows is computed once."""
    ends = min(tokens), max(tokens)
    shared = next(i for i, pair in enumerate(zip(*ends, strict=False)) if pair[0] != pair[1])
    start, cache = torch.tensor([ends[0][:shared]]), DynamicCache()
    mask, position = torch.ones_like(start), torch.arange(shared)[None, None]
    hidden = run(model.body, model.body.embed_tokens(start), position, mask, cache)
    prompt = Prompts(start, mask, cache, torch.tensor([shared]), hidden[:, -1])
    found = torch.empty(len(tokens))
    for places, ids, kept in in_parts([row[shared:] for row in tokens]):
        hidden = follow(model.body, prompt, torch.zeros_like(places), ids, kept)
        last = hidden[torch.arange(len(ids)), kept.sum(1) - 1]
        found = found.index_copy(0, places, model.score(last)[:, 0])
    return found


def update(model: Any, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Descend by a loss, with verl's bound on the gradient."""
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def main() -> None:
    """Take steps: CHECKPOINT RUN STEPS LINES."""
    checkpoint, folder, steps, lines = sys.argv[1:]
    torch.manual_seed(0)
    groups = training_steps(Path(folder), "")[-1].groups
    rows = torch.tensor([i for i, group in enumerate(groups) for _ in group.responses])
    responses = [each for group in groups for each in group.responses]
    number, ones = len(responses), torch.ones(len(responses))
    advantages = torch.tensor([each.advantage or 0.0 for each in responses])
    is_student = torch.tensor([float(each.source == "student") for each in responses])
    processor = transformers.AutoProcessor.from_pretrained(checkpoint, padding_side="left")
    tokenizer, end = processor.tokenizer, processor.tokenizer.eos_token_id
    load = AutoModelForImageTextToText.from_pretrained
    policy, reference = (load(checkpoint, dtype=torch.float32) for _ in range(2))
    judge = load_discriminator(checkpoint, dtype=torch.float32, attention="sdpa")
    descent, judge_descent = (torch.optim.AdamW(m.parameters(), 1e-4) for m in (policy, judge))
    for step in range(int(steps)):
        inputs = read_inputs(processor, groups)
        with torch.no_grad():
            own = sample(policy, read_prompts(policy, inputs), end)
        texts = [discriminator_tokens(tokenizer, each.response) for each in responses]
        logits = discriminator_logits(judge, texts)
        update(judge, judge_descent, discriminator_loss(logits, is_student, ones, number))
        answers = [tokenizer.encode(r.response, add_special_tokens=False) for r in responses]
        parts = in_parts([[*answer, end] for answer in answers])
        with torch.no_grad():
            discriminator_logits(judge, texts)  # its reward; the advantages are the record's
            expected = log_probs(reference, read_prompts(reference, inputs), rows, parts)[:, None]
        found = log_probs(policy, read_prompts(policy, inputs), rows, parts)[:, None]
        weights = torch.cat([advantages[i].repeat_interleave(m.sum(1)) for i, _, m in parts])
        # Each token is a row here: with one length for all, they sum up as whole responses do.
        scale: dict[str, Any] = {"clip_eps": 0.2, "kl_coef": 0.01, "length_scale": 20}
        scale |= {"mask": torch.ones_like(found), "num_responses": number}
        update(policy, descent, policy_loss(found, None, expected, weights, **scale).loss)
        with Path(lines).open("a") as file:
            line = {"step": step + 1, "tokens": sum(map(len, own)) / len(own)}
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
