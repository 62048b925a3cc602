"""verl's own trackers over two starts of a run, each in a process; read by their own readers."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from rilbench.train.sample_tables import COLUMNS, KEY
from rilbench.train.trackers import FILE, LOG

# They start services and open data bases.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(1500)]

START = """
import sys
from pathlib import Path
from verl.utils.tracking import Tracking, ValidationGenerationsLogger
from rilbench.train.sample_tables import SampleTables
from rilbench.train.trackers import TrackedRun, begin, continued, new_at

name, saved, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
folder = Path("runs/first").absolute()
folder.mkdir(parents=True, exist_ok=True)
run = TrackedRun(folder, "first-0a1b2c3d", "rilbench", saved, [name])
# As a resumed run's: a setting is another.
config = {"trainer": {"total_training_steps": last, "resume": str(saved), "list": [1, "a"]}}
begin(run, config)
tracking = Tracking("rilbench", "first", run.opened_by_verl, config)
loggers = continued(tracking, run)
tables = SampleTables(loggers.logger)
dev = ValidationGenerationsLogger("rilbench", "first")


def score(step):
    dev.log(new_at(loggers, step), [("question", f"response of {step}", 1.0)], step)
    loggers.log({"val-core/dev/acc/mean@1": 0.5}, step=step)


score(saved)
for step in range(saved + 1, last + 1):
    row = (step, "q1", "How many?", "3", "72b", f"from step {saved}", "right", 2.0, None)
    tables.log(step, [row])
    loggers.log({"actor/loss": step + saved / 10, "ril/reward": 1.0}, step=step)
tracking.finish()
"""
LOSS = {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.2, 5: 5.2}
"""Of two starts, the first killed after step 3 with step 2 saved; the tracker keeps step 3."""
AGAIN = {**LOSS, 3: 3.2}
"""As above, but the tracker forgets step 3, which is done again."""


@pytest.fixture
def log_twice(tmp_path, monkeypatch):
    """Log a run to a tracker that is offline in two starts: steps 1–3, and from 2 on 3–5."""
    variables = {
        "HOME": str(tmp_path),
        "WANDB_MODE": "offline",
        "SWANLAB_MODE": "offline",
        "CLEARML_OFFLINE_MODE": "1",
        "CLEARML_CACHE_DIR": str(tmp_path / "clearml"),
        "TRACKIO_DIR": str(tmp_path / "trackio"),
    }
    for name in ("MLFLOW_TRACKING_URI", "WANDB_RUN_ID", "SWANLAB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    def start(name):
        pytest.importorskip(name if name != "file" else "verl")
        for saved, last in ((0, 3), (2, 5)):
            command = [sys.executable, "-c", START, name, str(saved), str(last)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=600)
            assert done.returncode == 0, done.stderr[-3000:]
        kept = json.loads(Path("runs/first", FILE).read_text())
        assert kept[name]["step"] == 5
        return kept[name]

    return start


def test_tensorboard_forgets_what_is_done_again(log_twice):
    log_twice("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator("runs/first/tensorboard").Reload()
    assert {x.step: round(x.value, 3) for x in read.Scalars("actor/loss")} == AGAIN
    assert len(read.Scalars("actor/loss")) == len(AGAIN)
    assert [x.step for x in read.Tensors(f"{KEY}/text_summary")] == list(AGAIN)
    assert [x.step for x in read.Tensors("val/generations/text_summary")] == [0]
    assert [x.step for x in read.Scalars("val-core/dev/acc/mean@1")] == [0]


def test_the_file_forgets_what_is_done_again(log_twice, monkeypatch):
    from rilbench.train.pipeline.run_folder import forget_after

    run = subprocess.run

    def start(command, **more):
        forget_after(Path("runs/first"), int(command[-2]))  # as the pipeline does
        return run(command, **more)

    monkeypatch.setattr(subprocess, "run", start)
    log_twice("file")
    lines = [json.loads(line) for line in Path("runs/first", LOG).read_text().splitlines()]
    losses = [(x["step"], x["data"]["actor/loss"]) for x in lines if "actor/loss" in x["data"]]
    assert losses == list(AGAIN.items())
    rows = [x["data"][KEY][0] for x in lines if KEY in x["data"]]
    assert [row["step"] for row in rows] == list(AGAIN)
    assert list(rows[0]) == list(COLUMNS)


def test_mlflow_has_one_run_although_settings_changed(log_twice):
    kept = log_twice("mlflow")
    import mlflow

    mlflow.set_tracking_uri(kept["uri"])
    mlflow.set_experiment("rilbench")
    (run,) = mlflow.search_runs(experiment_names=["rilbench"], output_format="list")
    client = mlflow.MlflowClient()
    assert run.info.run_id == kept["id"]
    assert (run.info.run_name, run.info.status) == ("first-0a1b2c3d", "FINISHED")
    assert run.data.params["trainer/total_training_steps"] == "3"
    history = client.get_metric_history(run.info.run_id, "actor/loss")
    assert [(x.step, round(x.value, 3)) for x in history] == list(LOSS.items())
    table = mlflow.load_table(f"{KEY}.json", run_ids=[run.info.run_id])
    assert list(table["step"]) == list(LOSS)
    assert list(table["response"]) == ["from step 0"] * 3 + ["from step 2"] * 2
    artifacts = {x.path for x in client.list_artifacts(run.info.run_id)}
    assert artifacts == {f"{KEY}.json", "val_step0.json"}


def test_mlflow_goes_on_where_it_began_or_says_why_not(log_twice, monkeypatch):
    log_twice("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///another.db")
    command = [sys.executable, "-c", START, "mlflow", "5", "6"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    told = done.stderr.strip().splitlines()[-1]
    assert "MLflow at sqlite:///another.db does not take the run" in told
    assert told.endswith("set MLFLOW_TRACKING_URI as at the run's start, or leave --log mlflow out")


def test_trackio_has_one_run(log_twice):
    log_twice("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    assert SQLiteStorage.get_runs("rilbench") == ["first-0a1b2c3d"]
    logs = SQLiteStorage.get_logs("rilbench", "first-0a1b2c3d")
    assert [(x["step"], x["actor/loss"]) for x in logs if "actor/loss" in x] == list(LOSS.items())
    rows = [x[KEY]["_value"][0] for x in logs if KEY in x]
    assert [row["step"] for row in rows] == list(LOSS)


def test_wandb_has_one_run_and_one_table(log_twice):
    log_twice("wandb")
    from wandb.proto import wandb_internal_pb2

    ids, losses = set(), []
    for file in sorted(Path("wandb").glob("offline-run-*/*.wandb")):
        for data in logged_records(file):
            record = wandb_internal_pb2.Record.FromString(data)
            if record.run.run_id:
                ids.add((record.run.project, record.run.run_id))
            items = {item.key or item.nested_key[0]: item for item in record.history.item}
            if "actor/loss" in items:
                loss = json.loads(items["actor/loss"].value_json)
                losses.append((record.history.step.num, loss))
    assert ids == {("rilbench", "first-0a1b2c3d")}
    assert losses == list(LOSS.items())
    tables = [json.loads(x.read_text()) for x in Path("wandb").glob("**/table/*.json")]
    rows = [row for table in tables if table["columns"] == list(COLUMNS) for row in table["data"]]
    assert sorted(row[0] for row in rows) == list(LOSS)


def test_swanlab_has_one_run_and_a_table_for_each_step(log_twice):
    log_twice("swanlab")
    from google.protobuf.json_format import MessageToDict
    from swanlab.proto.swanlab.record.v1.record_pb2 import Record

    found = []
    for file in sorted(Path("swanlog").glob("run-*/*.swanlab")):
        found += [MessageToDict(Record.FromString(data)) for data in logged_records(file)]
    assert {x["start"]["id"] for x in found if "start" in x} == {"first-0a1b2c3d"}
    losses = [x["scalar"] for x in found if x.get("scalar", {}).get("key") == "actor/loss"]
    assert [(int(x["step"]), x["value"]["number"]) for x in losses] == list(LOSS.items())
    tables = [x["media"] for x in found if x.get("media", {}).get("key") == KEY]
    assert [int(x["step"]) for x in tables] == list(LOSS)


def test_clearml_has_the_steps_as_they_are(log_twice):
    kept = log_twice("clearml")
    assert kept["id"].startswith("offline-"), "a server would go on with its task"
    found = []
    for session in sorted(Path("clearml").glob("**/metrics.jsonl"), key=os.path.getmtime):
        for line in session.read_text().splitlines():
            found += [x for x in json.loads(line) if x.get("metric") in ("actor", KEY)]
    losses = [(x["iter"], round(x["value"], 3)) for x in found if x.get("variant") == "loss"]
    assert losses == list(LOSS.items())
    assert [x["iter"] for x in found if x["metric"] == KEY] == list(LOSS)


def logged_records(file):
    """Records of a log in LevelDB's format, as W&B and SwanLab write it when they are offline."""
    data, at, record = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # the rest of a block
            at += 32768 - at % 32768
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        record += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or its last part
            yield record
            record = b""
