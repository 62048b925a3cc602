"""Two ranks of one policy, of which one has rows with pictures and one rows of text.

``python rank_of_text.py MODEL OUT RANK FILE``, once for each rank, in a folder of its own; FILE is
where they meet. Writes the log-probabilities of the rank's rows.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

import torch
from omegaconf import open_dict
from policy_rows import configuration, log_probs, make_rows

from rilbench.train.verl.workers import PolicyWorker


def main(model, out, rank, meet):
    """Write one rank's log-probabilities."""
    os.environ |= {"RANK": rank, "WORLD_SIZE": "2", "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "DIST_INIT_METHOD": meet}
    config, questions = configuration(model)
    with open_dict(config):
        config.trainer.n_gpus_per_node = 2
    worker = PolicyWorker(config.actor_rollout_ref, "actor")
    worker.init_model()
    pairs = [(q, q.answer) for q in questions if bool(q.images) == (rank == "0")][:2]
    rows = asyncio.run(make_rows(config, pairs, blank=False))
    with torch.no_grad():
        found = log_probs(worker, rows, worker.actor.model_config.tokenizer.pad_token_id)
    out.write_text(json.dumps({q.id: each for (q, _), each in zip(pairs, found, strict=True)}))
    torch.distributed.barrier()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4])
