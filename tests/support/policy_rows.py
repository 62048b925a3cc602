"""What the trainer's policy says of saved rows: ``python policy_rows.py MODEL OUT``.

The agent loop's own code makes the rows of the questions in ``questions.parquet``; verl's engine
computes the log-probabilities of their tokens, once as they are and once with black pictures. A
process of its own, because verl replaces methods of transformers' classes.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

import torch
import yaml
from collected import stored
from omegaconf import OmegaConf, open_dict
from tensordict import TensorDict
from verl.experimental.agent_loop.agent_loop import AgentLoopWorker as VerlWorker
from verl.experimental.agent_loop.agent_loop import DictConfigWrap
from verl.utils import tensordict_utils as tu

from rilbench.checkpoint import inspect_checkpoint
from rilbench.config import load_recipe
from rilbench.config.layouts import suited
from rilbench.data.question_files import read_questions
from rilbench.train.batch import nested
from rilbench.train.pipeline.prepare_data import prepare_data
from rilbench.train.pipeline.run_folder import open_run
from rilbench.train.rollout import RILAgentLoop
from rilbench.train.step_config import StepConfig
from rilbench.train.verl.config import agent_loop_part, compose
from rilbench.train.verl.model_families import RLDataset, StudentModel, is_qwen
from rilbench.train.verl.rollout_worker import RolloutWorker
from rilbench.train.verl.workers import PolicyWorker


def configuration(model, method="dr-grpo", student="nano", more=()):
    """verl's configuration of a run in this folder with ``more`` settings, and its questions.

    Their data are those of the nano student's run without teachers: there are no saved responses.
    """
    questions = read_questions(Path("questions.parquet"))
    settings = [f"schedule.prompts_per_step={len(questions)}", "policy.micro_batch_size=2"]
    settings.append(f"student.model={model}")
    run = open_run(Path("run"), load_recipe("both", "nano", "dr-grpo", settings), resume=False)
    asked = stored(questions, run.folder / "data" / "pictures.arrow")
    prepare_data(run, inspect_checkpoint(model), [], asked, asked)
    loop = yaml.safe_dump(
        agent_loop_part(suited(run.recipe, model), run.folder, "http://127.0.0.1:1/v1", "", None)
    )
    (run.folder / "data" / "agent_loop.yaml").write_text(loop)
    settings = settings if student == "nano" else []
    recipe = suited(load_recipe("both", student, method, [*settings, *more]), model)
    config = compose(recipe, run.folder.resolve(), str(model), resume_from=None)
    OmegaConf.resolve(config)
    return config, questions


def loop_worker(config):
    """An agent loop worker without the queue of its rows, which would start Ray."""
    worker = RolloutWorker.__new__(RolloutWorker)
    VerlWorker.__init__(worker, config, None, None, None)
    (loop,) = OmegaConf.load(worker.rollout_config.agent.agent_loop_config_path)
    worker.step_config = StepConfig.parse(OmegaConf.to_container(loop.ril))
    worker.prepared = {}
    return worker


async def make_rows(config, pairs, blank):
    """The rows of (question, response) pairs as `RolloutWorker` hands them on."""
    worker = loop_worker(config)
    assert isinstance(worker.model_config, StudentModel)
    with open_dict(config):  # as the trainer does
        config.data.pictures_as_they_are = not is_qwen(worker.processor)
    data = RLDataset(config.data.train_files, worker.tokenizer, config.data, worker.processor)
    by_id = {row["extra_info"]["question_id"]: row for row in data}
    rows = []
    for question, response in pairs:
        row = by_id[question.id]
        loop = RILAgentLoop(
            trainer_config=DictConfigWrap(config),
            server_manager=None,
            tokenizer=worker.tokenizer,
            processor=worker.processor,
            hf_model_type=worker.hf_model_type,
            dataset_cls=RLDataset,
            data_config=DictConfigWrap(config.data),
            step_config=worker.step_config,
        )
        loop.uid, loop.response_length = question.id, 48
        output = await loop._saved_response("72b", response, 1, row["raw_prompt"])
        output.extra_fields["question"] = list(by_id).index(question.id)
        if blank and (shown := output.multi_modal_data.get("images")):
            output.multi_modal_data["images"] = [i.point(lambda _: 0) for i in shown]
        ids = torch.tensor(output.prompt_ids + output.response_ids)
        inputs = worker._compute_multi_modal_inputs(output, ids)
        ones = torch.ones_like(ids)[None]
        positions = worker._compute_position_ids(ids[None], ones, inputs)[0]
        rows.append((output, ids, positions, inputs))
    return rows


def parts(rows):
    """Prompts and responses of rows, and which have one question."""
    return {
        "prompts": nested([torch.tensor(output.prompt_ids) for output, *_ in rows]),
        "responses": nested([torch.tensor(output.response_ids) for output, *_ in rows]),
        "question": torch.tensor([output.extra_fields["question"] for output, *_ in rows]),
    }


def log_probs(worker, rows, pad):
    """The log-probability of each response under the policy."""
    batch = TensorDict(
        {
            "input_ids": nested([ids for _, ids, _, _ in rows]),
            "position_ids": nested([positions for _, _, positions, _ in rows]),
            "loss_mask": nested([torch.ones_like(ids) for _, ids, _, _ in rows]),
            **parts(rows),
        },
        batch_size=len(rows),
    )
    tu.maybe_fix_3d_position_ids(batch)
    tu.assign_non_tensor_stack(batch, "multi_modal_inputs", [inputs for *_, inputs in rows])
    tu.assign_non_tensor(batch, temperature=1.0, calculate_entropy=False, compute_loss=False)
    tu.assign_non_tensor(batch, pad_token_id=pad, global_token_num=[len(r[1]) for r in rows])
    found = worker.actor.infer_batch(batch)["log_probs"].unbind()
    # The i-th is of the token after the i-th.
    return [
        one[-1 - len(output.response_ids) : -1].tolist()
        for one, (output, *_) in zip(found, rows, strict=True)
    ]


def main(model, out):
    """Write the log-probabilities with and without pictures, and the shapes of the rows."""
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    config, questions = configuration(model)
    worker = PolicyWorker(config.actor_rollout_ref, "actor")
    worker.init_model()
    found = {}
    for name, blank in (("seen", False), ("blank", True)):
        rows = asyncio.run(make_rows(config, [(q, q.answer) for q in questions], blank))
        found[name] = log_probs(worker, rows, worker.actor.model_config.tokenizer.pad_token_id)
    found["positions"] = [list(positions.shape) for _, _, positions, _ in rows]
    found["inputs"] = sorted(rows[0][3])
    found["prompts"] = [output.prompt_ids for output, *_ in rows]
    out.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
