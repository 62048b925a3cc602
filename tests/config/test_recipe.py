import contextlib
import itertools

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rilbench.config import METHODS, all_keys, known, load_recipe, read_recipe
from rilbench.config.load import RENAMED
from rilbench.errors import UserError


def test_every_shipped_combination_resolves():
    combinations = list(itertools.product(known("recipes"), known("students"), METHODS))
    for recipe, student, method in combinations:
        settings = {"sft": ["sft.steps=3"]}.get(method, [])
        if method == "opd" and not student.startswith("nano"):
            settings = ["hardware.devices=4", "hardware.teacher_devices=4"]
        resolved = load_recipe(recipe, student, method, settings)
        assert resolved.student.name == student
        assert resolved.teachers.names == {"both": ("72b", "78b")}.get(recipe, (recipe,))
        responses = resolved.num_student_responses + resolved.num_teacher_responses
        assert responses == 2 * resolved.group_size, "the same number for every method"


def test_paper_values_are_the_defaults():
    recipe = load_recipe("both")
    assert recipe.student.name == "qwen2.5-vl-7b"
    assert (recipe.group_size, recipe.policy.clip_eps, recipe.policy.kl_coef) == (4, 0.2, 0.01)
    assert (recipe.policy.mu, recipe.discriminator.mu) == (1, 1)
    assert (recipe.policy.lr, recipe.discriminator.lr) == (1e-6, 1e-6)
    s = recipe.sampling
    assert (s.temperature, s.top_p, s.top_k, s.repetition_penalty) == (1.0, 0.95, 50, 1.05)
    assert recipe.collection.teacher_responses == recipe.collection.student_responses == 16
    assert recipe.schedule.prompts_per_step * recipe.group_size == 144


@pytest.mark.parametrize("name", known("hardware"))
def test_a_hardware_profile_changes_nothing_but_hardware_settings(name):
    recipe = load_recipe("both", "internvl3-1b", hardware=name)
    assert recipe.hardware.profile == name
    plain, changed = load_recipe("both", "internvl3-1b").as_dict(), recipe.as_dict()
    for document in (plain, changed):
        del document["hardware"]
        for part in ("policy", "discriminator"):
            del document[part]["micro_batch_tokens"]
    assert plain == changed, "a profile must not change the method"


def test_a_hardware_profile_comes_after_the_student_and_before_overrides():
    assert load_recipe("both").hardware.profile == "1x8-80gb"
    assert load_recipe("both", "nano").hardware.profile == "cpu"
    on_gpus = load_recipe("both", "nano", hardware="1-gpu-80gb", overrides=["hardware.nodes=2"])
    assert (on_gpus.hardware.device, on_gpus.hardware.ranks) == ("cuda", 2)
    assert on_gpus.hardware.offload == "idle"
    with pytest.raises(UserError, match="hardware profile '2x8'; known: 1-gpu-16gb, 1-gpu-24gb"):
        load_recipe("both", hardware="2x8")


def test_the_profile_may_be_a_setting_and_brings_what_it_sets():
    name = "1x8-80gb-judge"
    expected = load_recipe("both", hardware=name).hardware
    assert (expected.devices, expected.judge_devices) == (4, 4)
    override = [f"hardware.profile={name}"]
    assert load_recipe("both", overrides=override).hardware == expected
    assert load_recipe("both", overrides=override, hardware="1-gpu-80gb").hardware == expected
    settings = {"hardware": {"profile": name}}
    assert load_recipe("both", settings=settings).hardware == expected
    with pytest.raises(UserError, match="unknown hardware profile '2x8'"):
        load_recipe("both", overrides=["hardware.profile=2x8"])


def test_a_student_like_another_differs_only_where_it_says():
    a, b = load_recipe("both", "nano").as_dict(), load_recipe("both", "nano-internvl").as_dict()
    assert b.pop("student") == {"name": "nano-internvl", "model": "nano:internvl"}
    assert a.pop("student") != b
    assert a == b


def test_a_recipe_and_a_student_may_be_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(
        "like: [both, nano]\nteachers: {names: [big], models: {big: x}}\npolicy: {lr: 1.0e-3}\n"
    )
    (tmp_path / "tall.yml").write_text("like: nano\nstudent: {name: tall, model: models/tall}\n")
    nano = load_recipe("both", "nano")
    mine = load_recipe("mine.yaml")
    assert (mine.recipe, mine.student) == ("mine", nano.student)
    assert mine.teachers.names == ("big",)
    assert mine.teachers.models.keys() == {"72b", "78b", "big"}
    assert (mine.policy.lr, mine.policy.length_scale) == (1e-3, nano.policy.length_scale)
    tall = load_recipe("mine.yaml", "tall.yml")
    assert (tall.student.name, tall.student.model) == ("tall", "models/tall")
    assert tall.policy.lr == nano.policy.lr, "the student's file comes later"
    # A resolved recipe is a recipe file too, and its hardware settings are kept.
    one = load_recipe("mine.yaml", "tall.yml", overrides=["hardware.memory_gib=9"])
    (tmp_path / "resolved.yaml").write_text(one.to_yaml())
    again = load_recipe("resolved.yaml")
    assert again.as_dict() == one.as_dict() | {"recipe": "resolved"}
    other = load_recipe("resolved.yaml", hardware="1x8-80gb").hardware
    assert (other.profile, other.memory_gib) == ("1x8-80gb", 80)


def test_a_student_may_be_a_folder_or_a_name_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "My-Model").mkdir()
    for name in ("My-Model", "./My-Model", str(tmp_path / "My-Model")):
        student = load_recipe("both", name).student
        assert (student.name, student.model) == ("my-model", str(tmp_path / "My-Model"))
    student = load_recipe("both", "Qwen/Qwen3-VL-2B-Instruct").student
    assert (student.name, student.model) == ("qwen3-vl-2b-instruct", "Qwen/Qwen3-VL-2B-Instruct")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("policy: [", "cannot be read as YAML"),
        ("- a list", "holds no settings"),
        ("student: small", "student is a group"),
        ("like: nobody", "nobody is neither a student nor a recipe"),
        ("policy: {lrr: 1.0}", "policy.lr"),
        ("student: {name: nobody}", "unknown student 'nobody'; known: .*; or give a YAML file, a"),
        (None, "bad.yaml cannot be read .No such file or directory.; check its path"),
    ],
)
def test_a_bad_file_is_refused(tmp_path, text, words):
    file = tmp_path / "bad.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError, match=words):
        load_recipe(str(file))


def test_round_trip_and_fingerprint(tmp_path):
    recipe = load_recipe("both", "nano", overrides=["policy.lr=1e-5", "seed=3"])
    assert recipe.policy.lr == 1e-5
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe.to_yaml())
    again = read_recipe(file)
    assert again == recipe
    assert again.fingerprint == recipe.fingerprint
    assert recipe.fingerprint in file.read_text().splitlines()[0]
    assert load_recipe("both", "nano", overrides=["seed=4"]).fingerprint != recipe.fingerprint


def test_every_key_of_the_document_is_settable():
    document = yaml.safe_load(load_recipe("both", "nano").to_yaml())
    keys = set(all_keys())
    for group, values in document.items():
        if isinstance(values, dict):
            assert {f"{group}.{name}" for name in values} <= keys
        else:
            assert group in keys


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["policy.lrr=1"], "policy.lr"),
        (["policy.kl_coef=much"], "policy.kl_coef"),
        (["schedule.steps=1.5"], "schedule.steps"),
        (["schedule.steps=0"], "at least 1"),
        (["group_size=true"], "group"),
        (["policy=3"], "group of settings"),
        (["steps"], "key=value"),
        (["teachers.mix=some"], "split, each"),
        (["schedule.export=best"], "--eval-every"),
        (["policy.mini_batches=5"], "must divide"),
        (["policy.kl_coef=-1"], "must not be negative"),
        (["policy.lr=nan"], "above 0"),
        (["sampling.temperature=0"], "above 0"),
        (["sampling.temperature=1e-320"], "at least 1e-12"),
        ([f"schedule.steps={10**400}"], "is too large; give at most 4294967295"),
        ([f"group_size={2**32}"], "is too large"),
        (["policy.kl_coef=1e300"], "is too large"),
        (["hardware.devices=4294967295"], "give at most 1024"),
        ([f"policy.kl_coef={10**400}"], "is too large"),
        (["schedule.steps=" + "9" * 5000], "schedule.steps"),
        (["schedule.steps=2024-13-45"], "schedule.steps"),
        (["hardware.devices=0"], "at least 1"),
        (["discriminator.pretrain_batch_size=1"], "pretrain_batch_size"),
        (["hardware.offload=some"], "none, idle, always"),
        (["hardware.offload=always"], "--hardware cpu"),
        (["hardware.device=cuda", "hardware.rollout_memory=1"], "between 0 and 1"),
        (["hardware.device=cuda", "hardware.rollout_tensor_parallel=2"], "must divide"),
        (["hardware.remove_padding=true"], "needs GPUs"),
        (["hardware.memory_gib=0"], "at least 1"),
        (["policy.micro_batch_tokens=100"], "policy.micro_batch_tokens=208"),
        (["discriminator.micro_batch_tokens=100"], "discriminator.micro_batch_tokens=560"),
        (["discriminator.micro_batch_tokens=-1"], "must not be negative"),
        (["teachers.names=[72b, other]"], "teachers.models.NAME"),
        (["num_samples=-1"], "must not be negative"),
        (["teachers.max_responses=-1"], "must not be negative"),
        (["teachers.max_responses=5"], "collection.teacher_responses=4"),
        (["reward.similarity=graded"], "binary, continuous"),
        (["policy.teachers_in_loss=maybe"], "policy.teachers_in_loss"),
        (["policy.teachers_in_loss=1"], "policy.teachers_in_loss"),
        (["judge.false_positive_rate=1.5"], "0 to 1"),
        (["judge.false_negative_rate=-0.1"], "0 to 1"),
        (["judge.false_positive_rate=nan"], "0 to 1"),
        (["judge.false_positive_rate=0.6", "judge.false_negative_rate=0.5"], "more than 1"),
        (["judge.false_positive_rate=0.1", "judge.model=other"], "judge.model=rule"),
        (["discriminator.pretrain_steps=-1"], "must not be negative"),
        (["discriminator.pretrain_steps=0", "discriminator.mu=0"], "method=teacher-rows"),
        (["sft.steps=-1"], "must not be negative"),
        (["sft.data=x.parquet"], "sft.steps=N"),
        (["sft.lr=0"], "above 0"),
        (["sft.batch_size=0"], "at least 1"),
        (["method=sft"], "sft.steps=N"),
        (["method=dr-grpo", "teachers.max_responses=2"], "teachers.max_responses changes nothing"),
        (["method=dr-grpo", "reward.similarity=continuous"], "reward.similarity changes nothing"),
        (["method=teacher-rows", "reward.similarity=continuous"], "changes nothing"),
        (
            ["method=grpo", "policy.teachers_in_loss=false"],
            "policy.teachers_in_loss changes nothing",
        ),
        (["method=imitation", "judge.false_positive_rate=0.1"], "judge.false_positive_rate"),
        (["method=sft", "sft.steps=2", "num_samples=4"], "num_samples changes nothing"),
    ],
)
def test_bad_overrides_say_what_to_do(overrides, words):
    with pytest.raises(UserError) as raised:
        load_recipe("both", "nano", overrides=overrides)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(UserError, match="72b, 78b, both"):
        load_recipe("72", "nano")
    with pytest.raises(UserError, match="nano"):
        load_recipe("both", "qwen")
    with pytest.raises(UserError, match="dr-grpo"):
        load_recipe("both", "nano", "ppo")


@given(st.text(max_size=40))
def test_any_override_resolves_or_is_a_user_error(text):
    with contextlib.suppress(UserError):  # anything else fails the test
        load_recipe("both", "nano", overrides=[text])


@pytest.mark.parametrize(
    ("overrides", "num_samples", "num_saved"),
    [
        ([], 4, 4),
        (["method=imitation"], 4, 4),
        (["method=teacher-rows"], 4, 4),
        (["method=dr-grpo"], 8, 0),
        (["method=grpo", "num_samples=4"], 4, 0),
        (["num_samples=2"], 2, 4),
        (["teachers.mix=each"], 4, 8),
    ],
)
def test_responses_to_a_question(overrides, num_samples, num_saved):
    recipe = load_recipe("both", "nano", overrides=overrides)
    assert (recipe.num_student_responses, recipe.num_teacher_responses) == (num_samples, num_saved)


@pytest.mark.parametrize(
    ("overrides", "method", "teacher"),
    [
        ([], "ril", "both"),
        (["method=teacher-rows"], "teacher-rows", "both"),
        (["method=dr-grpo"], "dr-grpo", "none"),
        (["method=sft", "sft.steps=5"], "sft", "both"),
        (["method=sft", "sft.steps=5", "sft.data=x.parquet"], "sft", "none"),
        (["method=dr-grpo", "sft.steps=5"], "sft+dr-grpo", "both"),
        (["method=dr-grpo", "sft.steps=5", "sft.data=x.parquet"], "sft+dr-grpo", "none"),
        (["sft.steps=5"], "sft+ril", "both"),
    ],
)
def test_labels_in_tables(overrides, method, teacher):
    recipe = load_recipe("both", "nano", overrides=overrides)
    assert (recipe.method_label, recipe.teacher_label) == (method, teacher)


def test_saved_responses_are_all_unless_fewer_are_used():
    assert load_recipe("both", "nano").max_saved_responses == 4
    assert (
        load_recipe("both", "nano", overrides=["teachers.max_responses=1"]).max_saved_responses == 1
    )


def test_settings_of_how_it_runs_do_not_change_the_fingerprint():
    recipe = load_recipe("both")
    for same in (
        "hardware.offload=idle",
        "hardware.ray_address=auto",
        "hardware.remove_padding=false",
    ):
        assert load_recipe("both", overrides=[same]).fingerprint == recipe.fingerprint
    for same in ("collection.max_failed=0.1", "judge.max_missing=0.1", "judge.url=http://a/v1"):
        assert load_recipe("both", overrides=[same]).fingerprint == recipe.fingerprint
    for other in ("judge.model=rule", "schedule.steps=4", "hardware.devices=4"):
        assert load_recipe("both", overrides=[other]).fingerprint != recipe.fingerprint


def test_the_family_is_the_fingerprint_without_the_seed():
    one, other = (load_recipe("both", "nano", None, [f"seed={seed}"]) for seed in (1, 2))
    assert one.fingerprint != other.fingerprint
    assert one.family == other.family == load_recipe("both", "nano").fingerprint


def test_an_old_name_is_refused_with_the_new_one(tmp_path):
    """On the command line, in a recipe's file and in a student's file."""
    file = tmp_path / "old.yaml"
    for old, new in RENAMED.items():
        key, _, value = old.partition("=")
        message = f"the setting {old!r} is now {new!r}"
        assert new.partition("=")[0] in all_keys()
        assert value or key not in all_keys()
        *groups, name = key.split(".")
        settings = {name: value or 1}
        for group in reversed(groups):
            settings = {group: settings}
        for recipe, student, overrides in (
            ("both", "nano", [f"{key}={value or 1}"]),
            (str(file), "nano", []),
            ("both", str(file), []),
        ):
            file.write_text(yaml.safe_dump({"like": "nano", **settings}))
            with pytest.raises(UserError) as raised:
                load_recipe(recipe, student, overrides=overrides)
            assert str(raised.value) == message


@pytest.mark.parametrize(("save", "score", "fits"), [(10, 7, False), (7, 7, True), (30, 5, True)])
def test_best_needs_steps_that_are_saved_and_scored(save, score, fits):
    settings = ["schedule.export=best", f"schedule.save_every={save}"]
    settings += [f"schedule.eval_every={score}", "schedule.steps=30"]
    if fits:
        load_recipe("both", "nano", None, settings)
        return
    with pytest.raises(UserError, match=r"set schedule\.save_every=7") as told:
        load_recipe("both", "nano", None, settings)
    load_recipe("both", "nano", None, [*settings, str(told.value).rsplit(" ", 1)[1]])


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("judge.retries", "the settings of judge are model, url, "),
        ("policy.lora", "the settings of policy are lr, "),
        ("schedule.warmup", "the settings of schedule are steps, "),
        ("data.system_prompt", "the settings of data are train, "),
        ("policy.lrs", r"the nearest is 'policy\.lr'"),
        ("judge.max_mising", r"the nearest is 'judge\.max_missing'"),
    ],
)
def test_an_unknown_setting_is_offered_only_what_is_near(key, words):
    with pytest.raises(UserError, match=words):
        load_recipe("both", "nano", None, [f"{key}=1"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["teachers.routes={a: 72b}"], "set that, or leave it out"),
        (["teachers.mix=routed"], r"set teachers\.routes\.SOURCE=TEACHER"),
        (["teachers.mix=routed", "teachers.routes={a: 72b}"], "no source is routed to 78b"),
        (["teachers.mix=routed", "teachers.routes={a: 72b, b: 90b}"], "are 72b, 78b; use one"),
        (["method=opd", "teachers.mix=each"], "one teacher with method=opd"),
        (["method=opd", "policy.kl_coef=0.1"], "policy.kl_coef changes nothing"),
        (["method=opd", "collection.endpoints.72b=http://x/v1"], "log-probabilities"),
        (["method=gad", "reward.similarity=continuous"], "changes nothing with method=gad"),
    ],
)
def test_teachers_that_a_method_cannot_use_are_refused(settings, words):
    with pytest.raises(UserError, match=words):
        load_recipe("both", "nano", None, settings)


def test_opd_needs_devices_for_its_teachers():
    with pytest.raises(UserError, match=r"hardware\.teacher_devices=0; set it to a multiple of 2"):
        load_recipe("both", "qwen2.5-vl-7b", "opd")
    recipe = load_recipe(
        "both", "qwen2.5-vl-7b", "opd", ["hardware.devices=4", "hardware.teacher_devices=4"]
    )
    assert recipe.hardware.node_devices == 8
    assert not recipe.uses_reference
    assert recipe.teacher_label == "both"


def test_settings_that_came_later_leave_older_fingerprints_alone():
    # Results in the tree name their recipes by it.
    assert load_recipe("both", "nano").fingerprint == "0fb8094869fa99d1"
