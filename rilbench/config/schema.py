"""Every setting of a run. A default is the paper's value where the paper gives one.

``[App C]``, ``[Table 5c]`` and the like name the place in the paper; ``unstated`` means that the
paper leaves the value open. `docs/paper.md` explains every choice.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from rilbench.ril.methods import METHODS, Method

DISCRIMINATOR_WORDS = 64
"""Tokens that the discriminator's prompt adds to a response, about."""
PARTS = ("", "embedding", "attention", "gate", "up", "down", "norm", "head")
"""Parts of the language model that can be frozen [Table 5c]; "": none."""

HOW_IT_RUNS = (
    # memory and parallelism
    "policy.micro_batch_tokens",
    "discriminator.micro_batch_tokens",
    "hardware.profile",
    "hardware.offload",
    "hardware.rollout_tensor_parallel",
    "hardware.rollout_memory",
    "hardware.judge_devices",
    "hardware.teacher_devices",
    "hardware.gradient_checkpointing",
    "hardware.remove_padding",
    "hardware.share_prompts",
    # addresses and folders
    "hardware.ray_address",
    "judge.url",
    "judge.serve",
    "collection.endpoints",
    "collection.folder",
    "collection.serve",
    # how fast, and how many failures are too many
    "collection.concurrency",
    "collection.max_failed",
    "collection.price",
    "data.max_failed",
    "judge.max_missing",
    "judge.timeout",
    "schedule.max_wait",
    # what is saved on the way
    "schedule.save_every",
    "schedule.keep",
    "schedule.export_adapter",
)
"""Settings that do not change the method or its results, so they are not fingerprinted."""

ADDED_LATER = (
    "data.manifests",
    "teachers.routes",
    "policy.lora_rank",
    "policy.lora_alpha",
    "policy.lora_targets",
    "discriminator.lora_rank",
)
"""Settings that older recipes do not have: at their defaults they are not fingerprinted, so that
what was stored before them keeps its fingerprint."""

ALSO_ON_RESUME = (
    "schedule.steps",
    "schedule.eval_every",
    "schedule.export",
    "hardware.nodes",
    "hardware.devices",
    "hardware.memory_gib",
)
"""Fingerprinted settings with which a run may still be resumed: they change what comes out or how
it is rounded, not the steps that were done."""


def may_change(key: str) -> bool:
    """Whether ``--resume`` accepts another value of a setting, such as ``judge.url``."""
    return any(f"{key}.".startswith(f"{setting}.") for setting in HOW_IT_RUNS + ALSO_ON_RESUME)


@dataclass(frozen=True)
class Student:
    """The model that is trained."""

    name: str = "qwen2.5-vl-7b"  # its name in tables
    model: str = ""  # a folder, a hub name (OWNER/NAME), or "nano:NAME"


@dataclass(frozen=True)
class Teachers:
    """The models whose saved responses join the student's samples in a group."""

    names: tuple[str, ...] = ()  # one or both teachers [Table 2]
    models: Mapping[str, str] = field(default_factory=dict)  # name -> folder, hub name or nano:NAME
    mix: str = "split"
    """"split": the teachers share G responses; "each": G from each [unstated]; "routed": the source
    of a question names its teacher"""
    routes: Mapping[str, str] = field(default_factory=dict)
    """for mix=routed: source of a question -> teacher; "*" stands for every other source"""
    max_responses: int = 0  # saved responses used per teacher and question [Fig. 7]; 0: all


@dataclass(frozen=True)
class Data:
    """The questions, as Parquet or JSON lines (`rilbench.data.question_files`, docs/data.md)."""

    train: str = ""  # files to train on, by commas or as a pattern; the paper's 40K [App C]
    dev: str = ""  # files to score during the run; share nothing with the benchmarks
    max_prompt_tokens: int = 4096  # longest prompt, images included; unstated
    max_response_tokens: int = 2048  # longest response; unstated
    max_failed: float = 0.05  # share of a step's questions that may fail and be replaced
    manifests: Mapping[str, str] = field(default_factory=dict)
    """train, dev or sft -> digest of the manifest of rilbench data build; the run fills it in"""


@dataclass(frozen=True)
class Sampling:
    """How responses are sampled, the student's and the teachers' [App C]."""

    temperature: float = 1.0
    top_p: float = 0.95
    top_k: int = 50
    repetition_penalty: float = 1.05


@dataclass(frozen=True)
class Collection:
    """The responses that are collected and saved before training [App C]."""

    teacher_responses: int = 16  # per teacher and question [App C]
    student_responses: int = 16  # per question, to pretrain the discriminator [App C]
    concurrency: int = 32  # requests in flight, to each copy of a model that the run serves
    seed: int = 0
    folder: str = ""  # folder that several runs share; "": the run's own
    endpoints: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """teacher -> [MODEL@]URL of its server, or a list of several"""
    fields: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """teacher -> all fields of a request to it, instead of ``sampling``"""
    price: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """teacher -> [price of a million prompt tokens, of a million response tokens], for the plan"""
    serve: Mapping[str, str] = field(default_factory=dict)  # teacher -> options for vllm serve
    max_failed: float = 0.05  # share of a model's responses that may be empty or refused
    keep_reasoning: bool = False  # a thinking model's <think>…</think> is a part of its response


@dataclass(frozen=True)
class Discriminator:
    """The discriminator D and its training [Eq. 1]."""

    pretrain_steps: int = 1000  # unstated; 0: D starts untrained
    pretrain_batch_size: int = 256  # responses per step, half of them teachers'; unstated
    pretrain_lr: float = 1e-5  # learning rate at the start of pretraining [App C]
    pretrain_final_lr: float = 1e-6  # and at its end, linear [App C]
    lr: float = 1e-6  # learning rate in the loop [App C]
    mu: int = 1  # updates per step [Table 5a]; 0: frozen after pretraining [Table 5d]
    micro_batch_size: int = 16  # responses of the greatest length per forward pass on one device
    micro_batch_tokens: int = 0  # tokens per forward pass instead; 0: use micro_batch_size
    lora_rank: int = -1  # rank of its own adapter; -1: as policy.lora_rank; 0: train all parameters


@dataclass(frozen=True)
class Reward:
    """What a response earns besides the judge's verdict."""

    similarity: str = "binary"  # 1[D < 0.5]; "continuous": 1 - D [Fig. 6]
    extra: tuple[str, ...] = ()  # registered rewards, or FILE.py:FUNCTION; each is added


@dataclass(frozen=True)
class Policy:
    """The policy's training [Eq. 2]."""

    lr: float = 1e-6  # learning rate [App C]
    clip_eps: float = 0.2  # ε of the clipped ratio [Eq. 2]
    kl_coef: float = 0.01  # β, weight of the KL to the reference [Table 5b]
    mu: int = 1  # updates per step [Table 5a]
    mini_batches: int = 1  # optimizer steps per update; unstated
    length_scale: float = 0.0  # Dr.GRPO's constant length, unstated; 0: data.max_response_tokens
    weight_decay: float = 0.01  # of AdamW; unstated
    micro_batch_size: int = 4  # responses per forward pass on one device [App C]
    micro_batch_tokens: int = 0  # tokens per forward pass instead; 0: use micro_batch_size
    freeze: str = ""  # frozen part of the language model: head, attention, … [Table 5c]
    lora_rank: int = 0  # rank of a LoRA adapter; 0: train all parameters [Table 5c]
    lora_alpha: int = 32  # LoRA's scale is lora_alpha / lora_rank
    lora_targets: tuple[str, ...] = ("all-linear",)  # or layers: q_proj, language_model, …
    teachers_in_loss: bool = True  # false: teachers' responses have advantage 0


@dataclass(frozen=True)
class Sft:
    """Supervised fine-tuning before everything else [App C]."""

    steps: int = 0  # unstated; 0: no SFT
    data: str = ""  # file of questions whose answers are learned; "": the teachers' responses
    batch_size: int = 128  # responses per step; unstated
    lr: float = 1e-5  # learning rate at the start [App C]
    final_lr: float = 1e-6  # and at the end, linear [App C]


@dataclass(frozen=True)
class Judge:
    """The judge that gives the answer reward."""

    model: str = "Qwen/Qwen2.5-32B-Instruct"  # a model [Fig. 4], rule, parser or FILE.py:FUNCTION
    url: tuple[str, ...] = ()  # address of the model's server, or a list of several
    serve: str = ""  # options for vllm serve, where the run starts it on hardware.judge_devices
    timeout: float = 120.0  # seconds for one request to it
    max_missing: float = 0.05  # share of a step's responses that may have no verdict
    fields: Mapping[str, Any] = field(default_factory=dict)
    """all fields of a request to it, instead of temperature and max_tokens"""
    false_positive_rate: float = 0.0  # simulated: share of wrong responses judged right
    false_negative_rate: float = 0.0  # simulated: share of right responses judged wrong


@dataclass(frozen=True)
class Schedule:
    """The run's length, and what it saves."""

    steps: int = 1000  # [Fig. 5]
    prompts_per_step: int = 36  # 36 questions × 4 student responses are the paper's 144 [App C]
    save_every: int = 50  # steps between checkpoints
    keep: int = 2  # newest checkpoints that stay on the disk
    eval_every: int = 0  # steps between scores on the dev split; 0: never
    max_wait: float = 60.0  # minutes without a response after which a run stops; 0: never
    export: str = "last"  # or "best": the saved step with the highest score on the dev split
    export_adapter: str = "merge"  # "keep": the LoRA adapter beside the merged checkpoint, too


@dataclass(frozen=True)
class Hardware:
    """The devices, and how the run fits onto them [App C: 8 × A100-80GB]."""

    profile: str = "1x8-80gb"  # recipes/hardware/NAME.yaml, which sets what follows
    device: str = "cuda"  # or "cpu"
    nodes: int = 1
    devices: int = 8  # per node, to train on
    judge_devices: int = 0  # further ones of the node, for a judge that the run starts
    teacher_devices: int = 0  # further ones of the node, for the teachers of method=opd
    memory_gib: int = 80  # per device
    offload: str = "none"  # models moved to CPU memory: "none", "idle" between phases, or "always"
    rollout_engine: str = "auto"  # "auto": vLLM on GPUs, transformers on a CPU; or "vllm"
    rollout_tensor_parallel: int = 1  # devices that share one copy of the rollout engine
    rollout_memory: float = 0.5  # share of a device's memory for the rollout engine
    gradient_checkpointing: bool = True
    remove_padding: bool = True  # pack responses without padding; needs a GPU
    share_prompts: bool = True  # compute each prompt once for all responses to it
    ray_address: str = ""  # an existing Ray cluster, such as "auto"; "": start a local one

    @property
    def ranks(self) -> int:
        """Devices of all nodes that train."""
        return self.nodes * self.devices

    @property
    def node_devices(self) -> int:
        """Devices of the first node, those for judge and teachers included."""
        return self.devices + self.judge_devices + self.teacher_devices


@dataclass(frozen=True)
class Recipe:
    """A whole run."""

    recipe: str = "both"  # name of the recipe, by its teachers
    method: str = "ril"  # a name of rilbench.ril.methods: ril, dr-grpo, sft, gad, opd, …
    seed: int = 0
    group_size: int = 4  # G [App C]
    num_samples: int = 0  # student samples per question; 0: G with teachers, else 2G
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
    def discriminator_lora_rank(self) -> int:
        """Rank of the discriminator's adapter; 0: it trains all its parameters."""
        rank = self.discriminator.lora_rank
        return self.policy.lora_rank if rank < 0 else rank

    @property
    def keeps_adapter(self) -> bool:
        """Whether the adapter is exported beside the merged checkpoint."""
        return self.schedule.export_adapter == "keep"

    @property
    def sft_on_teachers(self) -> bool:
        """Whether an SFT stage learns the teachers' saved responses."""
        return self.sft.steps > 0 and not self.sft.data

    @property
    def uses_saved_responses(self) -> bool:
        """Whether the run needs the teachers' saved responses, in SFT or in the loop."""
        return self.method_spec.uses_saved_responses or self.sft_on_teachers

    @property
    def uses_reference(self) -> bool:
        """Whether the loss has a KL to the reference."""
        return self.method_spec.uses_reference and self.policy.kl_coef > 0

    @property
    def num_student_responses(self) -> int:
        """Responses to one question that the student samples in a step."""
        group_size = self.group_size if self.method_spec.uses_teachers else 2 * self.group_size
        return self.num_samples or group_size

    @property
    def num_teacher_responses(self) -> int:
        """Saved teacher responses to one question in a step."""
        if not self.method_spec.uses_teachers:
            return 0
        return self.group_size * (len(self.teachers.names) if self.teachers.mix == "each" else 1)

    @property
    def saved_responses_per_question(self) -> int:
        """Saved teacher responses that a step takes for one question, in its group or beside it."""
        if self.method_spec.pairs_with_teachers:
            return self.num_student_responses
        return self.num_teacher_responses

    @property
    def teacher_share(self) -> int:
        """The most of them that are of one teacher."""
        sharing = 1 if self.teachers.mix == "routed" else len(self.teachers.names)
        return -(-self.saved_responses_per_question // sharing)

    @property
    def rows_together(self) -> int:
        """Of a question's responses, how many always go to one device.

        As many as divide both them and a device's share of an update; 0: prompts are not shared.
        """
        if not self.hardware.share_prompts:
            return 0
        questions = self.schedule.prompts_per_step // self.policy.mini_batches
        group = self.num_student_responses + self.num_teacher_responses
        return math.gcd(group, questions * group // self.hardware.ranks)

    @property
    def responses_per_step(self) -> int:
        """All responses of one step, the student's and the teachers'."""
        group = self.num_student_responses + self.num_teacher_responses
        return self.schedule.prompts_per_step * group

    @property
    def max_sequence_tokens(self) -> int:
        """Tokens of the longest prompt with the longest response."""
        return self.data.max_prompt_tokens + self.data.max_response_tokens

    @property
    def max_discriminator_tokens(self) -> int:
        """Tokens of the longest text that the discriminator reads, with its own words."""
        question = self.data.max_prompt_tokens if self.method_spec.pairs_with_teachers else 0
        return question + self.data.max_response_tokens + DISCRIMINATOR_WORDS

    @property
    def max_saved_responses(self) -> int:
        """Saved responses per teacher and question that the run may use."""
        return self.teachers.max_responses or self.collection.teacher_responses

    @property
    def method_label(self) -> str:
        """The method's name in tables; RL after SFT is another method, such as ``sft+dr-grpo``."""
        return f"sft+{self.method}" if self.sft.steps and self.method_spec.is_rl else self.method

    @property
    def teacher_label(self) -> str:
        """The teachers' name in tables: ``72b``, ``78b``, ``both`` or ``none``."""
        if not (self.method_spec.learns_from_teachers or self.sft_on_teachers):
            return "none"
        return self.teachers.names[0] if len(self.teachers.names) == 1 else self.recipe

    @property
    def fingerprint(self) -> str:
        """16 hex digits over every setting but `HOW_IT_RUNS`, manifests of the data included."""
        values = self.as_dict()
        for key in HOW_IT_RUNS:
            group, name = key.split(".")
            del values[group][name]
        default = Recipe().as_dict()
        for group, name in (key.split(".") for key in ADDED_LATER):
            if values[group][name] == default[group][name]:
                del values[group][name]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def family(self) -> str:
        """The fingerprint without the seed: equal for repetitions of one experiment."""
        return dataclasses.replace(self, seed=0).fingerprint

    def teachers_of(self, source: str) -> tuple[str, ...]:
        """The teachers that answer questions of a source: all, unless they are routed."""
        if self.teachers.mix != "routed":
            return self.teachers.names
        routes = self.teachers.routes
        name = routes.get(source, routes.get("*"))
        return () if name is None else (name,)

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain types, in the order of the dataclasses."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    def to_yaml(self) -> str:
        """The resolved recipe as YAML, with its fingerprint in the first line."""
        body = yaml.safe_dump(self.as_dict(), sort_keys=False, allow_unicode=True)
        return f"# fingerprint: {self.fingerprint}\n{body}"
