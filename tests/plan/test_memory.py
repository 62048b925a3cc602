"""The plan's memory against what torch holds, on the nano student and its own questions.

Weights, gradients and AdamW's moments are exact. What autograd keeps of a forward is counted from
the tensors that it saves; the plan has to be within 10 % of that, part by part.
"""

import io

import pytest
import torch
from PIL import Image
from saved_memory import saved_by, size

from rilbench.config import load_recipe
from rilbench.data.question_files import read_questions
from rilbench.nano.model import load
from rilbench.paths import nano_folder
from rilbench.plan import find_architecture, make_plan
from rilbench.plan.assumptions import assume
from rilbench.train.verl.discriminator_model import load_discriminator

STUDENT = nano_folder() / "restyled"
RESPONSE = 48


@pytest.fixture(scope="module")
def trained():
    """Student and processor."""
    model, processor = load(STUDENT)
    return model.train(), processor


@pytest.fixture(scope="module")
def batch(trained):
    """The recipe's micro-batch: 64 rows of real questions, each with a response of tokens."""
    _, processor = trained
    rows = load_recipe("both", "nano").policy.micro_batch_size
    texts, pictures = [], []
    for question in read_questions(nano_folder() / "prompts.parquet")[:rows]:
        pictures += [Image.open(io.BytesIO(image)).convert("RGB") for image in question.images]
        prompt = processor.apply_chat_template(
            question.chat, add_generation_prompt=True, tokenize=False
        )
        texts.append(prompt + "7" * RESPONSE)  # a digit is a token
    return processor(text=texts, images=pictures, padding=True, return_tensors="pt")


def planned(batch, processor):
    """The nano plan, told this batch's lengths."""
    rows, longest = batch["input_ids"].shape
    image = int(
        (batch["input_ids"] == processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")).sum()
    )
    recipe = load_recipe(
        "both",
        "nano",
        overrides=[
            f"data.max_prompt_tokens={longest - RESPONSE}",
            f"data.max_response_tokens={RESPONSE}",
            f"policy.micro_batch_size={rows}",
        ],
    )
    told = [
        f"prompt_tokens={longest - RESPONSE}",
        f"response_tokens={RESPONSE}",
    ]
    assumed = assume(recipe, told)
    # A mean with a fraction, which no user would give.
    object.__setattr__(assumed, "image_tokens", image / rows)
    return make_plan(recipe, assumed)


def test_states_are_exact(trained, batch):
    model, processor = trained
    plan = planned(batch, processor)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.0)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    moments = [
        value for state in optimiser.state.values() for key, value in state.items() if key != "step"
    ]
    policy = plan.memory.policy
    assert policy.weights == size(model.parameters())
    assert policy.gradients == size(p.grad for p in model.parameters())
    assert policy.optimiser == size(moments)
    model.zero_grad(set_to_none=True)


def test_activations_and_logits_are_within_a_tenth(trained, batch):
    model, processor = trained
    plan = planned(batch, processor)
    vocabulary = plan.student.vocabulary
    labels = batch["input_ids"].roll(-1, dims=1)
    gradients = []

    def forward():
        logits = model(**batch, use_cache=False).logits
        logits.register_hook(lambda gradient: gradients.append(size([gradient])))
        chosen = logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        return chosen - logits.logsumexp(-1)

    saved, log_probs = saved_by(model, batch.values(), forward)
    log_probs.sum().backward()
    model.zero_grad(set_to_none=True)
    logits = saved.total(vocabulary)
    activations = saved.total() - logits
    assert plan.memory.policy.logits == pytest.approx(logits + gradients[0], rel=0.1)
    assert plan.memory.policy.activations == pytest.approx(activations, rel=0.1)
    whole = size(model.parameters()) * 4 + activations + logits + gradients[0]
    policy = plan.memory.policy
    assert policy.at_work == pytest.approx(whole, rel=0.1)


def test_checkpointing_keeps_the_layers_inputs(trained, batch):
    """One layer at a time is computed again, so only the inputs are saved in the forward."""
    model, processor = trained
    plan = planned(batch, processor)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    try:
        saved, _ = saved_by(
            model, batch.values(), lambda: model(**batch, use_cache=False).logits.sum()
        )
    finally:
        model.gradient_checkpointing_disable()
    rows, longest = batch["input_ids"].shape
    inputs = plan.student.text.layers * rows * longest * plan.student.text.hidden * 4
    assert saved.total() < plan.memory.policy.activations / 3
    assert saved.total() > inputs


def test_the_discriminators_part():
    recipe = load_recipe("both", "nano", overrides=["discriminator.micro_batch_size=64"])
    plan = make_plan(recipe, assume(recipe))
    discriminator = load_discriminator(str(STUDENT), dtype=torch.float32, attention="sdpa").train()
    held = plan.memory.discriminator
    assert plan.student.discriminator == sum(p.numel() for p in discriminator.parameters())
    assert held.weights == size(discriminator.parameters())
    ids = torch.randint(8, plan.student.vocabulary, (64, RESPONSE + 64))
    mask = torch.ones_like(ids)
    mask[0, :3] = 0  # padding, as in a batch of texts
    saved, logits = saved_by(
        discriminator, [ids, mask], lambda: discriminator(ids, attention_mask=mask).logits
    )
    assert logits.shape == (64, RESPONSE + 64, 1)
    assert held.activations == pytest.approx(saved.total(), rel=0.1)


def test_offload_and_devices_change_what_a_device_holds():
    student = find_architecture("", "qwen2.5-vl-3b")
    plans, hosts = {}, {}
    for offload in ("none", "idle", "always"):
        recipe = load_recipe("both", "qwen2.5-vl-3b", overrides=[f"hardware.offload={offload}"])
        made = make_plan(recipe, assume(recipe))
        plans[offload], hosts[offload] = made.memory, made.host_total
    none, idle, always = plans["none"], plans["idle"], plans["always"]
    assert none.policy.weights == student.parameters * 4 / 8
    waiting = none.policy.waiting
    assert none.phases["discriminator update"] - idle.phases["discriminator update"] == waiting
    assert always.policy.weights == always.policy.optimiser == 0
    assert hosts["none"] < hosts["idle"] < hosts["always"]
    update = [plan.phases["policy update"] for plan in (none, idle, always)]
    assert update == sorted(update, reverse=True)
    assert len(set(update)) == 3
