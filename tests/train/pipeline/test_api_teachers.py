"""Teachers and judge at API providers: strict servers, two keys, rate limits, real HTTP."""

import asyncio
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from collected import Notes
from PIL import Image
from strict_api import strict_api

from rilbench.config import load_recipe
from rilbench.data.question_files import Question
from rilbench.data.response_store import read_manifest
from rilbench.errors import UserError
from rilbench.judge.client import JudgeClient
from rilbench.serving import vllm_python
from rilbench.train.pipeline.collect_stage import collect_all, find_servers, teacher_collections
from rilbench.train.pipeline.preflight import probe_judge
from rilbench.train.pipeline.run_folder import Run


def picture(shade):
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(out, "PNG")
    return out.getvalue()


QUESTIONS = [Question(f"q{i}", (picture(i),), f"{i}?", "yes", "test") for i in range(4)]
FIELDS = "{max_completion_tokens: 96, temperature: 0.7, n: 2}"
KEYS = {"72b": "sk-seventy-two", "78b": "sk-seventy-eight"}


def run_of(folder, apis, *settings, recipe="both"):
    """A run whose teachers have hub names and are asked at addresses."""
    for name, api in apis.items():
        settings += (f"teachers.models.{name}=Big/{name}",)
        settings += (f"collection.endpoints.{name}={api.model}@{api.url}",)
    return Run(folder, load_recipe(recipe, "nano", None, settings))


def collect(run):
    notes = Notes()
    collect_all(run, teacher_collections(run), QUESTIONS, notes)
    return notes


def test_both_from_two_strict_apis_with_two_keys(tmp_path, monkeypatch):
    for name, key in KEYS.items():
        monkeypatch.setenv(f"RILBENCH_ENDPOINT_KEY_{name.upper()}", key)
    monkeypatch.setenv("RILBENCH_ENDPOINT_KEY", "sk-of-nobody")
    with (
        strict_api("flash-72b", KEYS["72b"], lambda _: "of the first", burst=5) as first,
        strict_api("pro-78b", KEYS["78b"], lambda _: "of the second") as second,
    ):
        fields = [f"collection.fields.{name}={FIELDS}" for name in KEYS]
        run = run_of(tmp_path, {"72b": first, "78b": second}, *fields, "collection.concurrency=2")
        collect(run)
    assert first.refused == second.refused == []
    parts = first.served[0]["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["image_url", "text"], "the probe has a picture"
    assert first.limited > 0
    assert first.too_early == 0, "Retry-After is obeyed by every request"
    for name, api in (("72b", first), ("78b", second)):
        rows = pq.read_table(run.collection / f"{name}.parquet").to_pylist()
        assert len(rows) == 16
        assert {row["response"] for row in rows} == {api.write({})}
        assert {(row["question_id"], row["sample"]) for row in rows} == {
            (q.id, i) for q in QUESTIONS for i in range(4)
        }
        assert {row["tokens"] for row in rows} == {3}
        # A probe, and two responses to each request.
        assert len(api.served) == 1 + 8
        sent = {"model", "messages", "max_completion_tokens", "temperature", "n"}
        assert all(body.keys() == sent for body in api.served)
        manifest = json.dumps(read_manifest(run.collection / f"{name}.parquet"))
        assert json.loads(manifest)["sampling"] == {"max_completion_tokens": 96, "temperature": 0.7}
        assert not any(secret in manifest for secret in (*KEYS.values(), api.url))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("", "supplied: repetition_penalty, top_k.*collection.fields.72b.*max_completion_tokens"),
        ("{max_completion_tokens: 96, top_k: 50}", "argument supplied: top_k"),
        ("{max_completion_tokens: 96, reasoning_effort: low}", "supplied: reasoning_effort"),
    ],
)
def test_the_probe_finds_fields_that_are_refused(tmp_path, monkeypatch, fields, words):
    monkeypatch.setenv("RILBENCH_ENDPOINT_KEY", "sk")
    with strict_api("flash", "sk", lambda _: "yes") as api:
        settings = [f"collection.fields.72b={fields}"] if fields else []
        run = run_of(tmp_path, {"72b": api}, *settings, recipe="72b")
        with pytest.raises(UserError, match=words):
            find_servers(run.recipe, teacher_collections(run), QUESTIONS, QUESTIONS[:3])
    assert len(api.refused) <= 4, "no more than the probe"
    assert api.served == []


def test_a_wrong_key_and_a_wrong_model_are_named_by_the_probe(tmp_path, monkeypatch):
    fields = "collection.fields.72b={max_completion_tokens: 96}"
    with strict_api("flash", "sk", lambda _: "yes") as api:
        run = run_of(tmp_path, {"72b": api}, fields, recipe="72b")
        probes = (run.recipe, teacher_collections(run), QUESTIONS, QUESTIONS[:3])
        with pytest.raises(UserError, match="RILBENCH_ENDPOINT_KEY_72B"):
            find_servers(*probes)
        monkeypatch.setenv("RILBENCH_ENDPOINT_KEY", "sk")
        assert find_servers(*probes)["72b"].name == "flash", "it lists no models"
        api.model = "another"
        with pytest.raises(UserError, match=r"404.*the model's name \(flash\)"):
            find_servers(*probes)


def test_one_of_two_addresses_may_be_lost(tmp_path):
    with (
        strict_api("flash", "none", lambda _: "here") as lost,
        strict_api("flash", "none", lambda _: "there") as other,
    ):
        settings = [
            "teachers.models.72b=Big/72b",
            f"collection.endpoints.72b=[flash@{lost.url}, flash@{other.url}]",
            "collection.fields.72b={max_completion_tokens: 96}",
            "collection.concurrency=2",
        ]
        run = Run(tmp_path, load_recipe("72b", "nano", None, settings))

        def stop_after_four(_):
            if len(lost.served) == 4:
                lost.server.socket.close()  # no more connections
            return "here"

        lost.write = stop_after_four
        collect(run)
    rows = pq.read_table(run.collection / "72b.parquet").to_pylist()
    texts = [row["response"] for row in rows]
    assert len(texts) == 16
    assert all(texts), "the other took over what the lost one owed"
    assert texts.count("here") >= 2


def test_one_of_two_addresses_may_be_down_at_the_start(tmp_path, caplog):
    with strict_api("flash", "none", lambda _: "yes") as api:
        for addresses, down in ((f"flash@{api.url}", False), ("flash@http://127.0.0.1:9/v1", True)):
            settings = [
                "teachers.models.72b=Big/72b",
                f"collection.endpoints.72b=[flash@http://127.0.0.1:9/v1, {addresses}]",
                "collection.fields.72b={max_completion_tokens: 96}",
            ]
            run = Run(tmp_path, load_recipe("72b", "nano", None, settings))
            probes = (run.recipe, teacher_collections(run), QUESTIONS, QUESTIONS[:1])
            if down:
                with pytest.raises(UserError, match="is not reached"):
                    find_servers(*probes)
            else:
                assert len(find_servers(*probes)["72b"].base_url) == 2
                assert "the other servers of 72b go on" in caplog.text


def test_each_host_gets_its_own_key(tmp_path, monkeypatch):
    """As in an evaluation: a host's key goes before a teacher's, and that before all others'."""
    for host in ("127_0_0_1", "LOCALHOST"):
        monkeypatch.setenv(f"RILBENCH_ENDPOINT_KEY_{host}", f"sk-{host}")
        monkeypatch.setenv(f"RILBENCH_JUDGE_KEY_{host}", f"sk-judge-{host}")
    monkeypatch.setenv("RILBENCH_ENDPOINT_KEY_72B", "sk-of-nobody")
    monkeypatch.setenv("RILBENCH_JUDGE_KEY", "sk-of-nobody")

    def at_localhost(api):
        return api.url.replace("127.0.0.1", "localhost")

    with (
        strict_api("flash", "sk-127_0_0_1", lambda _: "here") as one,
        strict_api("flash", "sk-LOCALHOST", lambda _: "there") as two,
        strict_api("j", "sk-judge-127_0_0_1", lambda _: "<answer>1</answer>") as judge,
        strict_api("j", "sk-judge-LOCALHOST", lambda _: "<answer>1</answer>") as other_judge,
    ):
        settings = [
            "teachers.models.72b=Big/72b",
            f"collection.endpoints.72b=[flash@{one.url}, flash@{at_localhost(two)}]",
            "collection.fields.72b={max_completion_tokens: 96}",
            f"judge.url=[{judge.url}, {at_localhost(other_judge)}]",
            "judge.model=j",
            "judge.fields={max_completion_tokens: 256}",
        ]
        run = Run(tmp_path, load_recipe("72b", "nano", None, settings))
        collect(run)
        probe_judge(run.recipe)
    for api in (one, two, judge, other_judge):
        assert api.refused == []
        assert api.served


def test_a_strict_judge_with_two_addresses(monkeypatch):
    monkeypatch.setenv("RILBENCH_JUDGE_KEY", "sk-judge")
    with (
        strict_api("judge-1", "sk-judge", lambda _: "<answer>1</answer>", burst=9) as one,
        strict_api("judge-1", "sk-judge", lambda _: "<answer>1</answer>") as two,
    ):
        settings = [f"judge.url=[{one.url}, {two.url}]", "judge.model=judge-1"]
        odd = [*settings, "judge.fields={max_tokens: 9, top_k: 1}"]
        with pytest.raises(UserError, match=r"supplied: top_k.*judge.fields"):
            probe_judge(load_recipe("72b", "nano", None, odd))
        probe_judge(load_recipe("72b", "nano", None, settings))
        fields = "judge.fields={max_completion_tokens: 256}"
        recipe = load_recipe("72b", "nano", None, [*settings, fields])

        async def ask():
            async with JudgeClient(
                recipe.judge.url, "judge-1", "sk-judge", fields=recipe.judge.fields, concurrency=4
            ) as judge:
                return await asyncio.gather(*(judge.verdict("q", "a", str(i)) for i in range(20)))

        assert {verdict.value for verdict in asyncio.run(ask())} == {1}
    assert one.too_early == two.too_early == 0
    assert min(len(one.served), len(two.served)) >= 3, "both are asked"
    bodies = [*one.served[1:], *two.served[1:]]
    assert all(b.keys() == {"model", "messages", "max_completion_tokens"} for b in bodies)


def test_settings_of_requests_are_checked():
    for setting, words in (
        ("collection.fields.27b={temperature: 1}", "no teacher 27b"),
        ("collection.fields.72b={model: x}", "set by rilbench"),
        ("collection.fields.72b={n: 0}", "number of responses"),
        ("judge.fields={n: 2}", "a judge's is 1"),
        ("collection.price.72b=[1, -2]", "must not be negative"),
        ("collection.price.72b=3", "not of type"),
    ):
        with pytest.raises(UserError, match=words):
            load_recipe("72b", "nano", None, [setting])
    recipe = load_recipe("72b", "nano", None, ["collection.price.72b=[1, 2.5]"])
    assert recipe.collection.price == {"72b": (1.0, 2.5)}
    assert recipe.fingerprint == load_recipe("72b", "nano").fingerprint
    other = load_recipe("72b", "nano", None, ["collection.fields.72b={temperature: 1}"])
    assert other.fingerprint != recipe.fingerprint, "the teacher is sampled otherwise"


def test_a_server_without_several_responses_to_a_request(tmp_path):

    with strict_api("flash", "none", lambda _: "yes") as api:
        run = run_of(tmp_path, {"72b": api}, f"collection.fields.72b={FIELDS}", recipe="72b")
        original = api.refusal

        def ignoring(body, authorization):
            body.pop("n", None)
            return original(body, authorization)

        api.refusal = ignoring
        with pytest.raises(UserError, match="returns 1 response for n=2"):
            collect(run)
    assert not Path(run.collection / "72b.parquet").exists()


def test_what_a_server_leaves_out_of_several_is_asked_for_again(tmp_path):
    with strict_api("flash", "none", lambda _: "yes") as api:
        run = run_of(tmp_path, {"72b": api}, f"collection.fields.72b={FIELDS}", recipe="72b")
        original = api.refusal

        def sometimes_one(body, authorization):
            status = original(body, authorization)
            if len(api.served) in (2, 3):
                body["n"] = 1
            return status

        api.refusal = sometimes_one
        collect(run)
    rows = pq.read_table(run.collection / "72b.parquet").to_pylist()
    assert sorted((row["question_id"], row["sample"]) for row in rows) == [
        (q.id, i) for q in QUESTIONS for i in range(4)
    ]
    assert not any(row["failure"] for row in rows)


def test_servers_that_the_run_starts_are_checked_too(tmp_path):
    fields = f"collection.fields.72b={FIELDS}"
    cases = [("cpu", [fields], "which samples by the recipe's settings")]
    if vllm_python() is None:
        cases.append(("1x8-80gb", [], "vLLM, which is not installed"))
    for hardware, settings, words in cases:
        run = Run(tmp_path, load_recipe("72b", "nano", None, settings, hardware))
        with pytest.raises(UserError, match=words):
            find_servers(run.recipe, teacher_collections(run), QUESTIONS)
