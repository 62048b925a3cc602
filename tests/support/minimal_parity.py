"""One policy update by the verl trainer's code, the minimal loop's and the lab's: ``… OUT``.

All get the same responses, verdicts and discriminator logits. OUT says what each makes of them:
rewards, advantages, loss, KL, the gradient's norm, and the largest difference of a gradient's
entry, relative to the largest entry. A process of its own: verl patches transformers' classes.
"""

import asyncio
import json
import os
import sys
from functools import partial
from pathlib import Path

import torch
from policy_rows import configuration, make_rows, parts
from step_batches import step_batch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from rilbench.checkpoint import inspect_checkpoint
from rilbench.config import load_recipe
from rilbench.lab.fast.engine import FastRun
from rilbench.lab.fast.groups import TrainingData
from rilbench.lab.fast.prompts import Student
from rilbench.paths import locate
from rilbench.ril.methods import METHODS
from rilbench.ril.step import score_step
from rilbench.train.batch import nested
from rilbench.train.losses import policy_loss_fn
from rilbench.train.step_config import StepConfig
from rilbench.train.trainer import RILTrainer
from rilbench.train.verl.workers import PolicyWorker

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import ril_minimal

GROUP_SIZE = 4
VERDICTS = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0]
LOGITS = torch.tensor([0.5, -0.2, -1.0, -2.0, 0.1, 0.3, -0.4, -0.6] * 2)


class Trainer(RILTrainer):
    """The trainer's own scoring, without verl's start."""

    def __init__(self, folder):
        self.recipe = load_recipe("both", "nano")
        self.step_config = StepConfig.from_recipe(self.recipe, folder)
        self.run_dir, self.global_steps = folder, 1
        self.step_metrics, self.judge_calls, self.rewards = {}, 0, {}


def verl_gradient(worker, rows, advantages, is_student, ref_log_prob, pad, *, update=False):
    """Loss, KL and gradients by verl's engine and the trainer's loss function.

    With ``update`` its optimiser makes a step.
    """
    responses = [torch.tensor(output.response_ids) for output, *_ in rows]
    batch = TensorDict(
        {
            "input_ids": nested([ids for _, ids, _, _ in rows]),
            "position_ids": nested([positions for _, _, positions, _ in rows]),
            "loss_mask": nested([torch.ones_like(ids) for _, ids, _, _ in rows]),
            **parts(rows),
            "response_mask": nested([torch.ones_like(r) for r in responses]),
            "advantages": nested(
                [
                    torch.full((len(r),), a)
                    for r, a in zip(responses, advantages.tolist(), strict=True)
                ]
            ),
            "is_student": nested(
                [
                    torch.full((len(r),), s)
                    for r, s in zip(responses, is_student.tolist(), strict=True)
                ]
            ),
            "ref_log_prob": nested(
                [values[: len(r)] for r, values in zip(responses, ref_log_prob, strict=True)]
            ),
        },
        batch_size=len(rows),
    )
    tu.maybe_fix_3d_position_ids(batch)
    tu.assign_non_tensor_stack(batch, "multi_modal_inputs", [inputs for *_, inputs in rows])
    tu.assign_non_tensor(batch, temperature=1.0, calculate_entropy=True, compute_loss=True)
    tu.assign_non_tensor(batch, pad_token_id=pad, global_token_num=[len(r[1]) for r in rows])
    tu.assign_non_tensor(batch, global_batch_size=len(rows), micro_batch_size_per_gpu=4)
    tu.assign_non_tensor(batch, use_dynamic_bsz=False)
    loss_fn = partial(
        policy_loss_fn,
        clip_eps=ril_minimal.CLIP_EPS,
        kl_coef=ril_minimal.KL_COEF,
        length_scale=ril_minimal.LENGTH_SCALE,
        aggregation="token-sum",
        on_policy=True,
    )
    engine = worker.actor.engine
    with engine.train_mode():
        engine.optimizer_zero_grad()
        output = engine.forward_backward_batch(batch, loss_fn, forward_only=False)
        gradients = {
            name: (p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad).clone()
            for name, p in engine.module.named_parameters()
            if p.grad is not None
        }
        if update:
            engine.optimizer_step()
    metrics = output["metrics"]
    return {name: sum(metrics[name].values) for name in ("policy_loss", "kl")}, gradients


def gradients_of(model):
    """A model's gradients by name."""
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def difference(own, verl):
    """The largest difference of an entry, relative to the largest entry."""
    differences = [(own[name] - verl[name]).abs().max().item() for name in own]
    return max(differences) / max(gradient.abs().max().item() for gradient in own.values())


def fast_objective(recipe, student, questions, tokens, advantages):
    """Equation 2 by the lab's engine, which computes each question's prompt once."""
    run = FastRun(recipe, Path(student), TrainingData(questions, {}, []), Path("fast"), print)
    rows = torch.arange(len(questions)).repeat_interleave(GROUP_SIZE)
    reference = Student(locate("nano:72b"))
    with torch.no_grad():
        ref, _ = reference.log_probs(reference.read(questions), rows, tokens)
    prompts = run.policy.read(questions)
    result, _ = run.objective(prompts, rows, tokens, advantages, None, ref)
    result.loss.backward()
    return result, run.policy.model


def main(out):
    """Compare them on groups of four saved responses to four questions."""
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    student = str(locate("nano:restyled"))
    models = ril_minimal.load_models(student)
    config, questions = configuration(inspect_checkpoint(Path(student)).path)
    # Another model as the reference, or the KL would be 0 and its gradient untested.
    models.reference = ril_minimal.load_models(str(locate("nano:72b"))).reference

    asked = [q for q in questions for _ in range(GROUP_SIZE)]
    texts = [
        text
        for q in questions
        for text in (q.answer, "I do not know", f"It is {q.answer}.", "<image> 7")
    ]
    rows = asyncio.run(make_rows(config, list(zip(asked, texts, strict=True)), blank=False))
    tokens = [output.response_ids for output, *_ in rows]
    assert tokens == [ril_minimal.as_student_tokens(models, text) for text in texts]

    batch = step_batch(VERDICTS)
    trainer_of_run = Trainer(Path("run"))
    trainer = trainer_of_run._score(batch, LOGITS, None)
    minimal = score_step(
        LOGITS, torch.tensor(VERDICTS), batch.group, batch.is_student, METHODS["ril"]
    )

    result = ril_minimal.policy_objective(models, asked, tokens, minimal.learned_advantage)
    result.loss.backward()
    with torch.no_grad():
        ref_log_prob, _ = ril_minimal.response_log_probs(models, models.reference, asked, tokens)
    fast, fast_model = fast_objective(
        trainer_of_run.recipe, student, questions, tokens, minimal.learned_advantage
    )
    worker = PolicyWorker(config.actor_rollout_ref, "actor")
    worker.init_model()
    pad = models.tokenizer.pad_token_id
    verl, gradients = verl_gradient(
        worker, rows, trainer.learned_advantage, batch.is_student, ref_log_prob, pad
    )
    found_by = {"minimal": gradients_of(models.policy), "fast": gradients_of(fast_model)}
    for own in found_by.values():
        assert own.keys() == gradients.keys(), own.keys() ^ gradients.keys()
    found = {
        "reward": [trainer.reward.tolist(), minimal.reward.tolist()],
        "advantage": [trainer.learned_advantage.tolist(), minimal.learned_advantage.tolist()],
        "loss": [float(verl["policy_loss"]), result.loss.item(), fast.loss.item()],
        "kl": [float(verl["kl"]), result.kl.item(), fast.kl.item()],
        "gradient_norm": [
            torch.cat([g.flatten() for g in grads.values()]).norm().item()
            for grads in (gradients, *found_by.values())
        ],
        "gradient_difference": [difference(own, gradients) for own in found_by.values()],
    }
    out.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
