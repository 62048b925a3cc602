"""What sharing prompts saves of an update and a reference pass, for a student of 120 million.

``make bench-update`` writes ``results/bench/update.json``: CPU seconds and memory of one group's
update and reference pass by verl's engine, for a random student of Qwen2.5-VL's layout with 28
layers, with each prompt computed once and with a prompt for each response. A process for each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
OUT = ROOT / "results" / "bench" / "update.json"
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "tests" / "bench")]

ROWS = 8
SIZES = {
    "prompt 1024 (768 of it picture), response 512": (1024, (48, 64), 512, 1),
    "prompt 48 (36 of it picture), response 150": (48, (12, 12), 150, 4),
}
"""By name: tokens of the prompt, patches of its picture (height, width), tokens of a response, and
the questions of a batch."""


def rows_of(
    model: Any, prompt: int, patches: tuple[int, int], response: int, questions: int
) -> Any:
    """A batch of random rows as verl's worker gets it."""
    import torch
    from tensordict import TensorDict
    from verl.utils import tensordict_utils as tu

    from rilbench.train.batch import nested

    torch.manual_seed(0)
    config = model.config
    grid = torch.tensor([[1, *patches]])
    picture = patches[0] * patches[1] // config.vision_config.spatial_merge_size**2
    width = 3 * 2 * config.vision_config.patch_size**2
    ids, positions, pictures = [], [], []
    for _question in range(questions):
        shown = torch.full((picture,), config.image_token_id)
        words = torch.randint(20, 400, (prompt - picture - 2,))
        mark = torch.tensor([config.vision_start_token_id])
        end = torch.tensor([config.vision_end_token_id])
        start = torch.cat([mark, shown, end, words])
        pixels = torch.randn(patches[0] * patches[1], width)
        for _ in range(ROWS):
            whole = torch.cat([start, torch.randint(20, 400, (response,))])
            found, _ = model.model.get_rope_index(
                whole[None],
                mm_token_type_ids=(whole == config.image_token_id).int()[None],
                image_grid_thw=grid,
                attention_mask=torch.ones_like(whole)[None],
            )
            text = torch.arange(len(whole))[None]
            ids.append(whole)
            positions.append(torch.cat([text, found[:, 0]]))
            pictures.append({"pixel_values": pixels, "image_grid_thw": grid})
    number = questions * ROWS
    responses = nested([torch.ones(response)] * number)
    batch = TensorDict(
        {
            "input_ids": nested(ids),
            "position_ids": tu.nested_tensor_from_tensor_list(positions),
            "loss_mask": nested([torch.ones_like(row) for row in ids]),
            "prompts": nested([row[:prompt] for row in ids]),
            "responses": nested([row[prompt:] for row in ids]),
            "question": torch.arange(questions).repeat_interleave(ROWS),
            "response_mask": responses,
            "advantages": nested([torch.full((response,), 0.5)] * number),
            "is_student": responses,
            "ref_log_prob": nested([torch.full((response,), -6.0)] * number),
        },
        batch_size=number,
    )
    tu.assign_non_tensor_stack(batch, "multi_modal_inputs", pictures)
    tu.assign_non_tensor(
        batch,
        temperature=1.0,
        calculate_entropy=True,
        pad_token_id=0,
        global_batch_size=number,
        micro_batch_size_per_gpu=ROWS,
        use_dynamic_bsz=False,
        use_remove_padding=False,
    )
    return batch


def child(student: Path, shared: bool, name: str) -> dict[str, float]:
    """Measure one update and one reference pass in this process; its folder is the current one."""
    import torch
    from omegaconf import OmegaConf
    from policy_rows import configuration

    from rilbench.data.question_files import read_questions, write_questions
    from rilbench.paths import locate
    from rilbench.train.losses import policy_loss_fn
    from rilbench.train.verl.config import SHARED_PROMPT_MODEL, STUDENT_MODEL
    from rilbench.train.verl.workers import PolicyWorker

    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    questions = read_questions(locate("nano:prompts.parquet"))[:2]
    write_questions(Path("questions.parquet"), questions)
    config, _ = configuration(student, "ril")
    config.actor_rollout_ref.model._target_ = SHARED_PROMPT_MODEL if shared else STUDENT_MODEL
    config.actor_rollout_ref.model.enable_gradient_checkpointing = True  # as on GPUs
    OmegaConf.resolve(config)
    worker = PolicyWorker(config.actor_rollout_ref, "actor")
    worker.init_model()
    torch.set_num_threads(1)
    engine = worker.actor.engine
    batch = rows_of(engine.module, *SIZES[name])
    loss = partial(
        policy_loss_fn,
        clip_eps=0.2,
        kl_coef=0.01,
        length_scale=512.0,
        aggregation="token-sum",
        on_policy=True,
    )
    found: dict[str, float] = {}
    with engine.eval_mode():
        found["reference"] = cpu_seconds(
            lambda: engine.forward_backward_batch(batch.clone(), None, forward_only=True)
        )
    with engine.train_mode():
        engine.optimizer_zero_grad()
        before = reset_peak()
        found["update"] = cpu_seconds(
            lambda: engine.forward_backward_batch(batch.clone(), loss, forward_only=False)
        )
        found["peak_gib"] = memory("VmHWM") / 2**20
        found["peak_above_start_gib"] = (memory("VmHWM") - before) / 2**20
        norm = torch.nn.utils.get_total_norm(
            [p.grad.full_tensor() for p in engine.module.parameters() if p.grad is not None]
        )
        found["gradient_norm"] = float(norm)
    return found


def cpu_seconds(work: Any) -> float:
    """CPU seconds of a call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def memory(field: str) -> int:
    """A field of this process's status, in KiB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def reset_peak() -> int:
    """Forget the peak of the resident memory; return what is resident, in KiB."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return memory("VmRSS")


def run(student: Path, shared: bool, name: str) -> dict[str, float]:
    """`child` in a process of its own."""
    environment = {**os.environ, "VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1"}
    mode = "shared" if shared else "plain"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--child", str(student), mode, name]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure all sizes, or one as a child."""
    parser = argparse.ArgumentParser(description="CPU seconds and memory of an update, by part")
    parser.add_argument("--child", nargs=3, metavar=("STUDENT", "MODE", "SIZE"))
    child_of = parser.parse_args().child
    if child_of:
        student, mode, name = child_of
        found = child(Path(student), mode == "shared", name)
        sys.stdout.write("\n" + json.dumps(found) + "\n")
        return
    from step_share import write_student

    sizes: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        student = Path(folder) / "student"
        parameters = write_student(student)
        for name in SIZES:
            plain, shared = run(student, False, name), run(student, True, name)
            seconds = [each["update"] + each["reference"] for each in (shared, plain)]
            assert abs(shared["gradient_norm"] / plain["gradient_norm"] - 1) < 1e-3
            sizes[name] = {
                "plain": {key: round(value, 3) for key, value in plain.items()},
                "shared": {key: round(value, 3) for key, value in shared.items()},
                "ratios": {
                    "update and reference": round(seconds[0] / seconds[1], 3),
                    "peak memory": round(shared["peak_gib"] / plain["peak_gib"], 3),
                    "peak memory above the start": round(
                        shared["peak_above_start_gib"] / plain["peak_above_start_gib"], 3
                    ),
                },
            }
    result = {"command": "make bench-update", "parameters": parameters, "sizes": sizes}
    OUT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps({name: size["ratios"] for name, size in sizes.items()}) + "\n")


if __name__ == "__main__":
    main()
