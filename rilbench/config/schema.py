"""Every setting of a run, with its default: the paper's value where it gives one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from rilbench.ril.methods import METHODS, Method

PARTS = ("", "embedding", "attention", "gate", "up", "down", "norm", "head")
"""What can keep its weights while the rest of the student is trained (Table 5c); "": nothing."""

HOW_IT_FITS = {
    "policy": ("micro_batch_tokens",),
    "discriminator": ("micro_batch_tokens",),
    "hardware": (
        *("profile", "offload", "rollout_tensor_parallel", "rollout_memory"),
        *("gradient_checkpointing", "remove_padding", "ray_address"),
    ),
}
"""Settings that say how a run makes do with its hardware, not what it computes."""


@dataclass(frozen=True)
class Student:
    """The model that is trained."""

    name: str = "qwen2.5-vl-7b"
    model: str = ""  # a folder, a hub name, or "nano:restyled"


@dataclass(frozen=True)
class Teachers:
    """Whose saved responses join the groups."""

    names: tuple[str, ...] = ()
    models: Mapping[str, str] = field(default_factory=dict)
    mix: str = "split"  # "split": G rows shared by the teachers; "each": G rows of each
    max_responses: int = 0  # saved responses of each teacher and question to sample from; 0: all


@dataclass(frozen=True)
class Data:
    """Files of questions, Parquet or JSON lines (`rilbench.data.question_files`, docs/data.md)."""

    train: str = ""
    dev: str = ""
    max_prompt_tokens: int = 4096
    max_response_tokens: int = 2048  # unstated in the paper


@dataclass(frozen=True)
class Sampling:
    """How responses are sampled (App. C)."""

    temperature: float = 1.0
    top_p: float = 0.95
    top_k: int = 50
    repetition_penalty: float = 1.05


@dataclass(frozen=True)
class Collection:
    """The saved responses (App. C: 16 of the student and 16 of the teacher for each question)."""

    teacher_responses: int = 16
    student_responses: int = 16
    concurrency: int = 32
    seed: int = 0
    folder: str = ""  # shared between runs; "": the run's own
    endpoints: Mapping[str, str] = field(default_factory=dict)  # teacher -> [MODEL@]URL, or served
    max_failed: float = 0.05  # share of one model's responses that may stay empty or be refused


@dataclass(frozen=True)
class Discriminator:
    """The discriminator's training: Equation 1."""

    pretrain_steps: int = 1000  # 0: it starts untrained
    pretrain_batch_size: int = 256
    pretrain_lr: float = 1e-5
    pretrain_final_lr: float = 1e-6
    lr: float = 1e-6
    mu: int = 1  # updates of a step; 0: frozen after pre-training
    micro_batch_size: int = 16
    micro_batch_tokens: int = (
        0  # above 0: as many rows as have so many tokens, instead of micro_batch_size
    )


@dataclass(frozen=True)
class Reward:
    """What a response earns besides the judge's verdict."""

    similarity: str = "binary"  # 1[D < 0.5]; "continuous": 1 - D
    extra: tuple[str, ...] = ()  # registered rewards, or FILE.py:FUNCTION; each is added


@dataclass(frozen=True)
class Policy:
    """The policy's training: Equation 2."""

    lr: float = 1e-6
    clip_eps: float = 0.2
    kl_coef: float = 0.01
    mu: int = 1  # updates of a step
    mini_batches: int = 1
    length_scale: float = 0.0  # 0: the longest response allowed (Dr.GRPO's constant is unstated)
    weight_decay: float = 0.01
    micro_batch_size: int = 4
    micro_batch_tokens: int = (
        0  # above 0: as many rows as have so many tokens, instead of micro_batch_size
    )
    freeze: str = ""  # one of PARTS, of the language model; SFT trains all
    teachers_in_loss: bool = True  # false: they count in D, rewards and means; their advantage is 0


@dataclass(frozen=True)
class Sft:
    """Supervised fine-tuning before everything else (App. C: 1e-5 to 1e-6, linear)."""

    steps: int = 0  # 0: no such stage
    data: str = ""  # questions with the answers to learn; "": the teachers' saved responses
    batch_size: int = 128  # of one step
    lr: float = 1e-5
    final_lr: float = 1e-6


@dataclass(frozen=True)
class Judge:
    """Who gives the answer reward: ``rule`` (ours, served on loopback) or a model at an address."""

    model: str = "Qwen/Qwen2.5-32B-Instruct"
    url: str = ""
    max_missing: float = 0.05  # share of a step's rows that may be without a verdict
    false_positive_rate: float = 0.0  # simulated: share of wrong responses that are called right
    false_negative_rate: float = 0.0  # simulated: share of right responses that are called wrong


@dataclass(frozen=True)
class Schedule:
    """How long, and what is kept."""

    steps: int = 1000
    prompts_per_step: int = 36  # in one step: 36 questions of 4 rows are the paper's 144
    save_every: int = 50
    keep: int = 2
    eval_every: int = 0  # steps between scores on the dev split; 0: never
    export: str = "last"  # or "best": the saved step with the highest score on the dev split


@dataclass(frozen=True)
class Hardware:
    """What the run stands on, and how it makes do with that."""

    profile: str = "1x8-80gb"  # recipes/hardware/NAME.yaml, which the values below come from
    device: str = "cuda"  # or "cpu"
    nodes: int = 1
    devices: int = 8  # in each node
    memory_gib: int = 80  # of each device
    offload: str = "none"  # to the machine's memory: "between": what is not at work; "always": all
    rollout_engine: str = "auto"  # vLLM on GPUs, transformers on a CPU; or "vllm" on a CPU too
    rollout_tensor_parallel: int = 1  # devices that share one copy of the sampling engine
    rollout_memory: float = 0.5  # share of a device's memory that the sampling engine takes
    gradient_checkpointing: bool = True
    remove_padding: bool = True  # pack rows; needs a GPU
    ray_address: str = ""  # of a cluster that is there, such as "auto"; "": one of its own

    @property
    def ranks(self) -> int:
        """Devices of all nodes."""
        return self.nodes * self.devices


@dataclass(frozen=True)
class Recipe:
    """A whole run."""

    recipe: str = "both"
    method: str = "ril"
    seed: int = 0
    group_size: int = 4  # G
    num_samples: int = 0  # rows of a question that the student samples; 0: G, without teachers 2G
    student: Student = field(default_factory=Student)
    teachers: Teachers = field(default_factory=Teachers)
    data: Data = field(default_factory=Data)
    sampling: Sampling = field(default_factory=Sampling)
    collection: Collection = field(default_factory=Collection)
    sft: Sft = field(default_factory=Sft)
    discriminator: Discriminator = field(default_factory=Discriminator)
    reward: Reward = field(default_factory=Reward)
    policy: Policy = field(default_factory=Policy)
    judge: Judge = field(default_factory=Judge)
    schedule: Schedule = field(default_factory=Schedule)
    hardware: Hardware = field(default_factory=Hardware)

    @property
    def method_spec(self) -> Method:
        """What the method uses."""
        return METHODS[self.method]

    @property
    def sft_on_teachers(self) -> bool:
        """Whether an SFT stage learns the teachers' saved rows."""
        return self.sft.steps > 0 and not self.sft.data

    @property
    def num_student_responses(self) -> int:
        """Rows of one question that the student samples."""
        return self.num_samples or (
            self.group_size if self.method_spec.uses_teachers else 2 * self.group_size
        )

    @property
    def num_teacher_responses(self) -> int:
        """Rows of one question that come from the saved collection."""
        if not self.method_spec.uses_teachers:
            return 0
        return self.group_size * (len(self.teachers.names) if self.teachers.mix == "each" else 1)

    @property
    def responses_per_step(self) -> int:
        """Rows of one step: of the student, and of its teachers."""
        return self.schedule.prompts_per_step * (
            self.num_student_responses + self.num_teacher_responses
        )

    @property
    def max_sequence_tokens(self) -> int:
        """Tokens of the longest prompt with the longest response."""
        return self.data.max_prompt_tokens + self.data.max_response_tokens

    @property
    def max_saved_responses(self) -> int:
        """Saved responses of each teacher and question that the run may use."""
        return self.teachers.max_responses or self.collection.teacher_responses

    @property
    def method_label(self) -> str:
        """The method's name in tables; one after SFT is another method: ``sft+dr-grpo``."""
        return f"sft+{self.method}" if self.sft.steps and self.method_spec.is_rl else self.method

    @property
    def teacher_label(self) -> str:
        """The teachers' name in tables: ``72b``, ``78b``, ``both`` or ``none``."""
        if not (self.method_spec.uses_teachers or self.sft_on_teachers):
            return "none"
        return self.teachers.names[0] if len(self.teachers.names) == 1 else self.recipe

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits over every setting; equal recipes have equal fingerprints."""
        text = json.dumps(self._identity(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def family(self) -> str:
        """The fingerprint without the seed: equal for runs that differ by chance alone."""
        return dataclasses.replace(self, seed=0).fingerprint

    def _identity(self) -> dict[str, Any]:
        """What makes a recipe another one: not how it fits, nor a later setting left alone.

        So that a run goes on with other hardware of the same number of devices, and one that began
        before there was such a setting is still the same run.
        """
        values = self.as_dict()
        for group, names in HOW_IT_FITS.items():
            for name in names:
                del values[group][name]
        return values

    def as_dict(self) -> dict[str, Any]:
        """Plain types only, in the order of the dataclass."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    def to_yaml(self) -> str:
        """The resolved recipe as YAML, its fingerprint in the first line."""
        body = yaml.safe_dump(self.as_dict(), sort_keys=False, allow_unicode=True)
        return f"# fingerprint: {self.fingerprint}\n{body}"
