"""A real checkpoint for the servers: the nano student's layout with random weights."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from rilbench.nano.model import build_model, build_processor, train_tokenizer

    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = train_tokenizer(seed=0)
    build_model(tokenizer, seed=0).save_pretrained(folder)
    build_processor(tokenizer).save_pretrained(folder)
    return folder
