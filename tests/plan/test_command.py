"""`rilbench plan`: every combination, in one process, from files of the tree alone."""

import itertools
import json
import re
import subprocess
import sys
import time

import pytest
from layouts import BUILDERS
from typer.testing import CliRunner

from rilbench.cli import app
from rilbench.config import METHODS, known, load_recipe
from rilbench.errors import UserError
from rilbench.plan import make_plan
from rilbench.plan.assumptions import Assumptions, assume, count_questions
from rilbench.plan.run_plan import stage_hours
from rilbench.plan.saved_responses import plan_collection

RUNNER = CliRunner()
STUDENTS = [name for name in known("students") if not name.startswith("nano")]
SMALL = [f"1-gpu-{size}gb" for size in (16, 24, 48)]
"""Profiles for LoRA: all parameters need more than they have."""
PARTS = {"weights", "gradients", "optimiser", "activations", "activations_unchecked", "logits"}


def plan(*arguments):
    result = RUNNER.invoke(app, ["plan", *arguments])
    assert result.exit_code == 0, result.exception or result.output
    return result.output


def planned(*arguments):
    return json.loads(plan(*arguments, "--format", "json"))


@pytest.mark.parametrize(
    ("hardware", "recipe", "combinations"),
    [
        # Each method and student once in `make test`; all with the long tests: each is ten seconds.
        pytest.param(
            *("1x8-80gb", "both", [*zip(itertools.cycle(STUDENTS), METHODS, strict=False)]),
            id="each method once",
        ),
        *(
            pytest.param(*pair, [*itertools.product(STUDENTS, METHODS)], marks=pytest.mark.slow)
            for pair in itertools.product(
                [h for h in known("hardware") if h != "cpu"], known("recipes")
            )
        ),
    ],
)
def test_every_combination_is_planned_and_dry_run_in_seconds(hardware, recipe, combinations):
    for student, method in combinations:
        arguments = ["--recipe", recipe, "--student", student, "--method", method]
        arguments += ["--hardware", hardware]
        arguments += ["--set", "sft.steps=10"] if method == "sft" else []
        arguments += ["--set", "hardware.teacher_devices=8"] if method == "opd" else []
        started = time.process_time()
        document = planned(*arguments)
        assert time.process_time() - started < 5
        assert document["memory"]["peak"] > 0
        assert document["attention"].startswith("torch.nn.attention.varlen")
        assert document["parameters"]["student"] > 900_000
        assert set(document["memory"]["policy"]) >= PARTS
        assert (document["step"] is None) == (method == "sft")
        dry = RUNNER.invoke(app, ["train", *arguments, "--dry-run"])
        if document["refused"]:
            assert str(dry.exception) == document["refused"][0]
            assert hardware.startswith("1-gpu-"), "only one GPU is too little"
        else:
            assert dry.exit_code == 0, dry.exception
            if hardware not in SMALL:
                assert all("GiB;" not in warning for warning in document["warnings"])


def test_the_table_has_all_parts():
    text = plan("--student", "qwen2.5-vl-7b")
    for words in (
        *("8,292,166,656", "weights", "gradients", "optimiser", "without checkpointing", "logits"),
        *("KV cache", "reference", "total: sampling", "total: policy update", "tokens sampled"),
        *("GPU-hours: collect: 72b", "GPU-hours: discriminator", "GPU-hours: ril", "judge calls"),
        *("responses to collect: 78b", "a step while it is saved", "its cache", "mfu=0.35"),
        *("decode_efficiency=0.5", "warning: the judge", "note: the schedule can use at most"),
        *("Memory of each machine", "while it is loaded", "queue", "weights to the rollout engine"),
    ):
        assert words in text, words
    assert "does not fit: internvl3-8b" in plan(
        "--student", "internvl3-8b", "--hardware", "1-gpu-80gb"
    )
    assert "discriminator" in plan("--student", "nano")


def test_it_imports_nothing_heavy(tmp_path):
    code = (
        "import sys; from rilbench.cli import app\n"
        "try: app(['plan', '--student', 'internvl3-1b'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'verl', 'ray', 'pandas', 'numpy', 'pyarrow'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stderr.strip() == "[]"
    assert list(tmp_path.iterdir()) == []


def test_counts_follow_the_recipe():
    document = planned("--recipe", "both", "--set", "schedule.steps=100")
    assert document["judge_calls"] == 100 * 288
    assert document["responses"] == dict.fromkeys(("72b", "78b", "student"), 40_000 * 16)
    assert document["step"]["responses"] == 288
    assert document["step"]["sampled_tokens"] == 144 * 512
    alone = planned("--method", "dr-grpo")
    assert alone["responses"] == {}
    assert alone["memory"]["discriminator"] is None
    assert alone["step"]["sampled_tokens"] == 288 * 512
    sft = planned("--method", "sft", "--set", "sft.steps=10")
    assert set(sft["gpu_hours"]) == {"collect: 72b", "collect: 78b", "sft"}


def test_hours_are_those_of_the_devices_that_do_the_work():
    """A teacher at an address takes none of ours; the first of four nodes serves the others."""
    url = "collection.endpoints.72b=http://t/v1"
    recipe = load_recipe("both", overrides=[url], hardware="4x8-80gb")
    plan = make_plan(recipe, assume(recipe))
    ours = plan.gpu_hours["collect: 78b"] + plan.gpu_hours["collect: student"]
    assert plan.gpu_hours["collect: 72b"] > 0
    assert stage_hours(plan)["collect"] == pytest.approx(ours / 8)
    assert stage_hours(plan)["ril"] == pytest.approx(plan.gpu_hours["ril"] / 32)
    distilled = ["hardware.devices=4", "hardware.teacher_devices=4"]
    recipe = load_recipe("72b", None, "opd", distilled)
    plan = make_plan(recipe, assume(recipe))
    hours = recipe.schedule.steps * plan.step.total_seconds / 3600
    assert plan.gpu_hours["opd"] == pytest.approx(8 * hours)
    assert stage_hours(plan)["opd"] == pytest.approx(hours)


def test_a_discriminator_of_pairs_reads_twice_as_much_and_the_question():
    ril, gad = (
        planned("--method", method, "--assume", "image_tokens=1024")["step"]["flops"]
        for method in ("ril", "gad")
    )
    # Of 8 rows with a question of pictures alone: 4 + 1 forwards; of 2 × 8: 4 + 1 + 1.
    assert gad["discriminator"] / ril["discriminator"] == pytest.approx(2 * 6 / 5)
    asked = planned("--method", "gad", "--assume", "image_tokens=512")["step"]["flops"]
    assert asked["discriminator"] > 1.9 * gad["discriminator"]


def test_small_cards_are_slower():
    speeds = [planned("--hardware", f"1-gpu-{gib}gb")["assumed"]["tflops"] for gib in (16, 24, 48)]
    assert speeds == sorted(speeds)
    assert speeds[-1] < 312


def test_assumptions_are_printed_and_can_be_replaced():
    document = planned("--assume", "mfu=0.7", "--assume", "questions=1000")
    plain = planned()
    assert document["assumed"]["mfu"] == 0.7
    assert document["step"]["seconds"]["policy"] == pytest.approx(
        plain["step"]["seconds"]["policy"] / 2
    )
    assert document["responses"]["72b"] == 16_000
    slower = planned("--assume", "decode_efficiency=0.25")
    assert slower["step"]["seconds"]["sampling: responses"] == pytest.approx(
        2 * plain["step"]["seconds"]["sampling: responses"]
    )


@pytest.mark.parametrize(
    "text",
    [
        *("mf=1", "mfu", "mfu=much", "mfu=0", "questions=1.5", "mfu=nan", "mfu=inf", "mfu=1e-320"),
        *("mfu=1.5", "tflops=1e308", f"questions={10**400}", "questions=" + "9" * 5000),
    ],
)
def test_bad_assumptions_are_refused(text):
    with pytest.raises(UserError, match="--assume"):
        assume(load_recipe("both"), [text])


def test_a_plan_at_the_bounds_has_numbers_only():
    sizes = ("schedule.steps", "group_size", "schedule.prompts_per_step")
    sets = [word for name in sizes for word in ("--set", f"{name}={2**32 - 1}")]
    speeds = ("mfu", "decode_efficiency", "tflops", "bandwidth")
    slow = [word for name in speeds for word in ("--assume", f"{name}=1e-6")]
    for arguments in (sets, slow, [*sets, *slow]):
        text = plan(*arguments) + plan(*arguments, "--format", "json")
        assert not re.search(r"\b(nan|inf|infinity)\b", text, re.IGNORECASE)


def test_a_step_waits_for_its_longest_response():
    """Of 144 responses one is always near the limit, and the devices wait for it."""
    document, mean = planned(), planned("--assume", "longest_response_tokens=512")
    sampling = [plan["step"]["seconds"]["sampling: responses"] for plan in (document, mean)]
    assert 3.5 < sampling[0] / sampling[1] < 4  # 2048 tokens instead of 512
    shorter = planned("--set", "data.max_response_tokens=1024")
    assert shorter["assumed"]["longest_response_tokens"] == 1024
    plain = planned("--set", "hardware.share_prompts=false")
    assert 90 < plain["step"]["total_seconds"] < 125  # seen elsewhere: 100 to 130


def test_shared_prompts_are_computed_once_on_each_device():
    plain = planned("--set", "hardware.share_prompts=false")["step"]["flops"]
    shared = planned()["step"]["flops"]
    for part in ("reference", "policy"):
        # Eight rows of 1024 + 512 tokens, or a prompt (of ten for nine on a device) and eight of
        # 512, without the head on the prompt and with an eighth of the vision tower.
        assert 0.36 < shared[part] / plain[part] < 0.42
    assert 0.85 < shared["discriminator"] / plain["discriminator"] < 1
    whole = planned("--set", "schedule.prompts_per_step=8")["step"]["flops"]
    assert whole["policy"] / 8 < shared["policy"] / 36, "no question's rows on two devices"


def test_a_student_that_cannot_share_prompts_is_planned_with_a_prompt_for_each(tmp_path):
    config = BUILDERS["gemma3"]()[0]
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    student = ("--set", f"student.model={tmp_path}", "--set", "student.name=mine")
    document, plain = (
        planned(*student, "--set", f"hardware.share_prompts={share}") for share in ("true", "false")
    )
    assert document["step"] == plain["step"]
    assert any("Gemma 3 cannot share prompts" in note for note in document["notes"])
    assert not any("share" in note for note in plain["notes"])


def test_teachers_score_each_response_on_devices_of_their_own():
    name = "teachers' log-probabilities"
    few, many = (
        planned("--method", "opd", "--set", f"hardware.teacher_devices={devices}")["step"]
        for devices in (4, 8)
    )
    assert few["seconds"][name] == pytest.approx(2 * many["seconds"][name])
    # Both have about 2 × 75e9 FLOPs for a token; a response and its prompt have 1536.
    assert few["flops"][name] == pytest.approx(few["responses"] * 1536 * 2 * 75e9, rel=0.07)
    # Each has half of the responses and half of the devices; 78b is the slower one.
    seconds = few["flops"][name] / (4 * 312e12 * 0.35)
    assert seconds < few["seconds"][name] < 1.1 * seconds
    assert name not in planned()["step"]["seconds"]


def test_full_caches_sample_in_turns():
    """360 sequences of 512 tokens where 74 have room, the last one until 2048."""
    made = {}
    for prompts in (72, 720):
        recipe = load_recipe("both", overrides=[f"schedule.prompts_per_step={prompts}"])
        made[prompts] = make_plan(recipe, assume(recipe))
    one, many = (plan.step.seconds["sampling: responses"] for plan in made.values())
    room = made[720].memory.rollout.sequences_at_once
    assert 36 < room < 360
    assert many / one == pytest.approx((2048 + (360 / room - 1) * 512) / 2048, rel=0.2)


def test_the_step_has_its_queue_its_sync_and_the_discriminators_imbalance():
    document = planned()
    seconds = document["step"]["seconds"]
    assert seconds["weights to the rollout engine"] == pytest.approx(4 * 8.292 / 8.25, rel=0.01)
    # float32: four patches of 3 × 2 × 14 × 14 for each token; once for four responses, since the
    # eight to a question may be on two devices.
    pixels = 288 / 4 * 768 * 4 * 1176 * 4
    assert document["host"]["queue"] == pytest.approx(pixels, rel=0.04)
    assert seconds["queue"] == pytest.approx(pixels * (1 + 2 / 8) / 2**30, rel=0.04)
    plain = planned("--set", "hardware.share_prompts=false")
    assert plain["host"]["queue"] == pytest.approx(4 * pixels, rel=0.02)
    even = planned("--assume", "discriminator_imbalance=1")["step"]["seconds"]["discriminator"]
    assert seconds["discriminator"] == pytest.approx(1.05 * even)
    assert planned("--student", "nano")["assumed"]["discriminator_imbalance"] == 1


def test_a_machines_memory_and_disk():
    document = planned()
    parameters = document["parameters"]["student"]
    host, disk = document["host"], document["disk"]
    loaded = host["a model while it is loaded or saved"]
    assert loaded == 4 * parameters
    # Pinned: torch rounds each weight's share up to a power of two.
    assert 1.5 * loaded < host["reference"] < 2 * loaded
    assert host["total"] == sum(size for part, size in host.items() if part != "total")
    # A tied head: verl loads the model on every rank.
    tied = planned("--student", "qwen2.5-vl-3b")
    assert tied["host"]["a model while it is loaded or saved"] == 32 * tied["parameters"]["student"]
    one = disk["a step while it is saved"]
    assert disk["2 saved steps"] == 2 * one
    assert planned("--set", "schedule.keep=5")["disk"]["5 saved steps"] == 5 * one
    assert disk["its cache while the run goes on"] == disk["data/train.parquet"]
    # 40,000 pictures of 0.2 bytes a pixel; 32 teachers' responses to each, and 16 of the student.
    assert disk["data/pictures.arrow"] == pytest.approx(40_000 * 768 * 28**2 * 0.2)
    assert disk["data/responses.arrow"] == 40_000 * (32 + 16) * 512 * 4
    assert disk["data/train.parquet"] == 40_000 * 1024 * 4
    assert disk["export"] == 2 * parameters
    assert disk["total"] == sum(size for part, size in disk.items() if part != "total")
    four = planned("--hardware", "4x8-80gb")
    assert four["host"]["reference"] == pytest.approx(host["reference"] / 4, rel=0.1)


def _collecting(document):
    """GPU-hours of collecting."""
    return sum(hours for stage, hours in document["gpu_hours"].items() if "collect" in stage)


def test_a_note_says_how_many_responses_the_schedule_can_use():
    """1000 steps × 36 questions are less than one pass over 40,000: most responses stay unused."""
    document = planned()
    assert document["responses_used"] == {"72b": 136_000, "78b": 136_000, "student": 128_000}
    (note,) = document["notes"]
    assert "272,000 of the teachers' 1,280,000" in note
    assert "128,000 of the student's 640,000" in note
    settings = re.findall(r"--set (\S+)", note)
    assert settings == ["collection.teacher_responses=4", "collection.student_responses=4"]
    fewer = planned(*(argument for setting in settings for argument in ("--set", setting)))
    assert fewer["notes"] == []
    assert fewer["responses_used"] == document["responses_used"]
    saved = _collecting(document) - _collecting(fewer)
    assert f"saves {saved:,.3g} of" in note
    assert saved > 600


@pytest.mark.parametrize(
    ("more", "enough"),
    [
        (["schedule.steps=10000"], 16),  # nine passes take two each time
        (["discriminator.pretrain_steps=0", "schedule.steps=3000"], 6),
        (["teachers.max_responses=3"], 3),
        (["teachers.mix=each"], 6),  # four from each teacher, and 1.6 for the discriminator
    ],
)
def test_enough_responses(more, enough):
    recipe = load_recipe("both", overrides=more)
    assert plan_collection(recipe, assume(recipe))["72b"].enough == enough


def test_sft_uses_its_batches_alone():
    recipe = load_recipe("both", method="sft", overrides=["sft.steps=1000"])
    found = plan_collection(recipe, assume(recipe))
    assert set(found) == {"72b", "78b"}
    assert found["72b"].used == 1000 * 128 // 2
    assert found["72b"].enough == 2


def test_questions_are_those_of_the_data(tmp_path):
    assert assume(load_recipe("both", "nano")).questions < 40_000
    assert assume(load_recipe("both")).questions == 40_000
    (tmp_path / "mine.jsonl").write_text("{}\n\n{}\n{}\n")
    for name, questions in (("mine.jsonl", 3), ("missing.parquet", 40_000)):
        recipe = load_recipe("both", overrides=[f"data.train={tmp_path / name}"])
        assert assume(recipe).questions == questions
    assert assume(recipe, ["questions=7"]).questions == 7
    (tmp_path / "broken.parquet").write_bytes(b"no Parquet")
    assert count_questions(str(tmp_path / "broken.parquet")) == 0


def test_defaults_are_cut_to_the_recipes_limits():
    found = assume(load_recipe("both", "nano"))
    assert (found.prompt_tokens, found.response_tokens) == (160, 48)
    assert Assumptions().lines[0] == "questions=40000"


def test_more_devices_are_faster_and_hold_less():
    one, four = (make_plan(r, assume(r)) for r in map(_on, ("1x8-80gb", "4x8-80gb")))
    assert four.step.total_seconds < one.step.total_seconds
    assert four.memory.policy.weights * 4 == one.memory.policy.weights


def _on(hardware):
    return load_recipe("both", hardware=hardware)


def test_a_warning_names_a_setting_that_helps():
    tight = ["policy.micro_batch_tokens=98304"]
    recipe = load_recipe("both", "internvl3-8b", overrides=tight)
    (warning,) = [line for line in make_plan(recipe, assume(recipe)).warnings if "GiB;" in line]
    assert "policy update needs about" in warning
    setting = warning.rsplit("set ", 1)[1]
    helped = load_recipe("both", "internvl3-8b", overrides=[*tight, setting])
    assert not [line for line in make_plan(helped, assume(helped)).warnings if "GiB;" in line]


def test_a_plan_for_reading_says_each_thing_once_and_breaks_no_command_line():
    small = ("--student", "qwen2.5-vl-3b", "--hardware", "1-gpu-24gb")
    shown = plan(*small, "--set", "policy.lora_rank=32")
    assert shown.count("the judge, ") == 1
    assert re.search(r"^72b: started first.*--dtype auto --generation-config vllm$", shown, re.M)
    assert not re.search(r"\de\+\d", shown), "2,310 and not 2.31e+03"
