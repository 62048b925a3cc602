"""The discriminator of the fast engine: the beginning of all rows once, equal rows once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from rilbench.lab.fast.prompts import padded
from rilbench.model.decoder import Decoder
from rilbench.ril.discriminator import (
    bradley_terry_loss,
    discriminator_loss,
    discriminator_tokens,
)
from rilbench.train.discriminator_texts import Texts
from rilbench.train.verl.discriminator_model import load_discriminator


class Discriminator:
    """D with its optimiser.

    Args:
        student: the checkpoint whose decoder D starts from.
        tokenizer: the student's.
        lr: learning rate in the loop.
        weight_decay: of AdamW.
        max_grad_norm: at which gradients are clipped.
    """

    def __init__(
        self, student: Path, tokenizer: Any, *, lr: float, weight_decay: float, max_grad_norm: float
    ) -> None:
        self.tokenizer, self.max_grad_norm = tokenizer, max_grad_norm
        self.tokens: dict[tuple[str, str], list[int]] = {}
        model = load_discriminator(str(student), dtype=torch.float32, attention="sdpa")
        self.model = model.eval()  # it has no dropout
        self.decoder = Decoder(self.model.body)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=lr, weight_decay=weight_decay
        )

    def logits(self, texts: Texts) -> Tensor:
        """(N,) logits of D."""
        read = list(zip(texts.responses, texts.questions, strict=True))
        distinct = sorted(set(read), key=lambda pair: (len(self._tokens(*pair)), pair))
        place = {pair: i for i, pair in enumerate(distinct)}
        ids = [self._tokens(*pair) for pair in distinct]
        # The beginning of all rows; at least one token of each is left behind it.
        lowest, highest = min(ids), max(ids)
        most = min(map(len, ids)) - 1
        number = next((i for i in range(most) if lowest[i] != highest[i]), most)
        shared = lowest[:number]
        positions = torch.arange(len(shared))[None]
        start = torch.tensor([shared])
        inputs = {"input_ids": start, "attention_mask": torch.ones_like(start)}
        prompt = self.decoder.read(inputs, positions)

        tokens, mask = padded([row[number:] for row in ids], self.tokenizer.pad_token_id)
        rows = torch.zeros(len(ids), dtype=torch.long)
        last = self.decoder.go_on(prompt, rows, tokens, mask, last_only=True)
        found: Tensor = self.model.score(last)[:, 0]
        return found[torch.tensor([place[pair] for pair in read])]

    def _tokens(self, response: str, question: str) -> list[int]:
        if (response, question) not in self.tokens:
            tokens = discriminator_tokens(self.tokenizer, response, question)
            self.tokens[response, question] = tokens
        return self.tokens[response, question]

    def update(self, texts: Texts) -> dict[str, float]:
        """One step of Equation 1: towards 1 for the student's responses, 0 for the teachers'.

        Or of Bradley-Terry, for pairs.
        """
        logits = self.logits(texts)
        if texts.paired:
            loss = bradley_terry_loss(*logits.chunk(2))
        else:
            n = len(logits)
            loss = discriminator_loss(logits, texts.is_student.float(), torch.ones(n), n)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
        self.optimizer.step()
        return {
            "discriminator_loss": float(loss.detach()),
            "discriminator_accuracy_before": texts.accuracy(logits.detach()),
            "discriminator_grad_norm": float(norm),
        }

    def set_learning_rate(self, lr: float) -> None:
        """From the next update on."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
