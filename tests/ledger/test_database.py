"""The ledger as a file: it returns what was recorded, and explains what is wrong with a path."""

import dataclasses
import os
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rilbench.errors import UserError, UserNotice
from rilbench.ledger import Evaluation, Ledger, Run, Sample, Score, default_db
from rilbench.ledger.place import file_system

SCORES = tuple(
    Score(
        benchmark=name,
        value=value,
        kit="vlmevalkit",
        kit_version="0.0.20",
        dataset=f"Nano{name}",
        metric="Overall",
        judge=judge,
        questions=3,
        answered=3,
        missing=missing,
        data_sha256="ab" * 32,
    )
    for name, value, judge, missing in (
        ("MMStar", 100 / 3, None, 0),
        ("MM-Vet", None, "rilbench-rule-judge-1", 3),
    )
)
SAMPLES = (
    Sample(benchmark="MMStar", question_id="10", prompt_hash="p1", response="A", score=1.0),
    Sample(
        benchmark="MMStar",
        question_id="9",
        prompt_hash="p2",
        response="[bold]\n\U0001f600\x00 \ud7a3",
        score=0.0,
        gold="B",
        judge="j",
        tokens=5,
        seconds=0.25,
        finish_reason="length",
    ),
    Sample(benchmark="MM-Vet", question_id="10", prompt_hash="p3", response=""),
)
EVALUATION = Evaluation(
    path="/models/a",
    fingerprint="f" * 16,
    student="nano",
    method="ril",
    teacher="both",
    run="r1",
    start_fingerprint="e" * 16,
    suite="nano",
    created="2026-01-02T03:04:05+00:00",
    commit="c0ffee",
    dirty=True,
    settings={"temperature": 0.0, "kits": ["vlmevalkit"]},
    scores=SCORES,
    samples=SAMPLES,
)
RUN = Run(
    name="r1",
    path="/runs/r1",
    recipe_fingerprint="x",
    recipe_yaml="student: nano\n",
    student="nano",
    method="ril",
    teacher="both",
    status="running",
    created="2026-01-02T03:04:05+00:00",
)


def test_records_are_returned_as_they_were_recorded(tmp_path: Path) -> None:
    path = tmp_path / "ledger ?#%.db"
    with Ledger(path) as ledger:
        number = ledger.record(EVALUATION)
    assert list(tmp_path.iterdir()) == [path]  # Closed: nothing beside it.
    for ledger in (Ledger(path), Ledger.open_read(path)):
        with ledger:
            expected = dataclasses.replace(EVALUATION, samples=(), id=number)
            assert ledger.evaluations() == [expected]
            assert ledger.samples(number) == list(SAMPLES)
            assert ledger.evaluations("nano") == [expected]
            assert ledger.evaluations("paper") == []
            with pytest.raises(UserError, match="no evaluation 99"):
                ledger.samples(99)


# What a shell, SQL or a path would take for something else; and any other text.
NAMES = st.sampled_from(
    [
        "../../etc/x",
        "a/b\\c",
        "'; DROP TABLE runs; --",
        '"',
        "%s ? :name",
        "\x00\x1b[2J\r\n",
        " ",
        "",
    ]
) | st.text(max_size=20)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """One ledger for many examples."""
    with Ledger(tmp_path_factory.mktemp("shared") / "l.db") as ledger:
        yield ledger


@settings(max_examples=25)
@given(NAMES, NAMES, NAMES, NAMES)
def test_any_name_is_returned_as_it_was_recorded(
    shared: Ledger, name: str, path: str, label: str, answer: str
) -> None:
    score = dataclasses.replace(SCORES[0], benchmark=name, dataset=path, judge=label, metric=answer)
    sample = dataclasses.replace(
        SAMPLES[0], benchmark=name, question_id=path, stratum=label, response=answer, gold=name
    )
    given_evaluation = dataclasses.replace(
        EVALUATION,
        **{"path": path, "student": label, "method": name, "run": name, "suite": label},
        settings={name: path, "list": [label]},
        scores=(score,),
        samples=(sample,),
    )
    given_run = dataclasses.replace(RUN, name=name, path=path, student=label, recipe_yaml=answer)
    number = shared.record(given_evaluation)
    shared.record_run(given_run)
    shared.record_run(given_run)
    with Ledger.open_read(shared.path) as ledger:
        (found,) = (each for each in ledger.evaluations(label) if each.id == number)
        kept = _kept(given_evaluation.settings)
        assert found == dataclasses.replace(given_evaluation, samples=(), id=number, settings=kept)
        assert ledger.samples(number) == [sample]
        assert [run for run in ledger.runs() if run.path == path] == [given_run]


def _kept(given_settings: object) -> object:
    """Hypothesis may find a name that says that it is a secret."""
    secrets = ("key", "token", "password", "secret", "authorization")
    assert isinstance(given_settings, dict)
    return {k: v for k, v in given_settings.items() if not k.lower().endswith(secrets)}


def test_newest_first_and_one_row_per_model(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.db") as ledger:
        first = ledger.record(EVALUATION)
        second = ledger.record(dataclasses.replace(EVALUATION, path="/moved"))
        third = ledger.record(dataclasses.replace(EVALUATION, method="base", run=None))
        assert [each.id for each in ledger.evaluations()] == [third, second, first]
        # A path is where an evaluation found the model: a later one does not change it.
        assert [each.path for each in ledger.evaluations()] == ["/models/a", "/moved", "/models/a"]
        assert ledger._db["models"].count == 2


def test_columns_tables_and_views_of_a_user_break_nothing(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.record(EVALUATION)
        ledger.record_run(RUN)
        before = ledger.evaluations(), ledger.samples(1), ledger.runs()
        for table in ("runs", "models", "evaluations", "scores", "samples", "paper_scores"):
            ledger._connection.execute(f"ALTER TABLE {table} ADD COLUMN mine TEXT DEFAULT 'x'")
        ledger._connection.execute("CREATE TABLE mine (id INTEGER)")
        ledger._connection.execute("CREATE VIEW my_view AS SELECT * FROM samples")
        assert (ledger.evaluations(), ledger.samples(1), ledger.runs()) == before
        ledger.record(dataclasses.replace(EVALUATION, path="/again"))
        ledger.record_run(dataclasses.replace(RUN, status="finished"))
        assert len(ledger.evaluations()) == 2


def test_runs_are_recorded_and_updated(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.record_run(RUN)
        done = dataclasses.replace(RUN, status="finished", finished="2026-01-02T04:00:00+00:00")
        ledger.record_run(done)
        elsewhere = dataclasses.replace(RUN, path="/other/r1")
        ledger.record_run(elsewhere)
        assert ledger.runs() == [elsewhere, done]


def test_secrets_are_not_kept(tmp_path: Path) -> None:
    settings = {
        "max_tokens": 9,
        "judge": [{"api_key": "sk-1", "name": "j", "Authorization": "Bearer sk-1"}],
        "hf_token": "sk-1",
        "server": "m at https://h/v1?api-version=2&api-key=sk-1",
    }
    run = dataclasses.replace(RUN, recipe_yaml="judge:\n  url: [https://h/v1?code=sk-1]\n")
    path = tmp_path / "l.db"
    with Ledger(path) as ledger:
        ledger.record_run(run)
        ledger.record(dataclasses.replace(EVALUATION, settings=settings))
        kept = ledger.evaluations()[0].settings
    server = "m at https://h/v1?api-version=2&api-key=…"
    assert kept == {"max_tokens": 9, "judge": [{"name": "j"}], "server": server}
    assert b"sk-1" not in path.read_bytes()


def test_all_or_nothing_when_a_row_is_wrong(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.db") as ledger:
        with pytest.raises(sqlite3.IntegrityError):
            ledger.record(dataclasses.replace(EVALUATION, samples=SAMPLES + SAMPLES[:1]))
        assert ledger.evaluations() == []
        assert [ledger._db[name].count for name in ("models", "scores", "samples")] == [0, 0, 0]
        ledger.record(EVALUATION)


def test_the_promised_pragmas(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.db") as ledger:
        values = {
            name: ledger._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert values.pop("busy_timeout") >= 10_000
    assert values == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_reading_makes_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.db", tmp_path / "no folder" / "none.db"):
        with Ledger.open_read(path) as ledger:
            assert ledger.evaluations() == []
            assert ledger.runs() == []
    assert list(tmp_path.iterdir()) == []


def test_reading_an_empty_file_leaves_it_empty(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    path.touch()
    with Ledger.open_read(path) as ledger:
        assert ledger.evaluations() == []
    assert path.stat().st_size == 0


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    Ledger(path).close()
    with Ledger.open_read(path) as ledger, pytest.raises(UserError, match="read-only"):
        ledger.record(EVALUATION)  # SQLite's own refusal, put into words.


def test_default_db(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RILBENCH_DB", raising=False)
    assert default_db() == Path("rilbench.db")
    monkeypatch.setenv("RILBENCH_DB", "/somewhere/else.db")
    assert default_db() == Path("/somewhere/else.db")
    assert default_db(tmp_path) == tmp_path
    monkeypatch.setenv("RILBENCH_DB", "")
    assert default_db() == Path("rilbench.db")


def _mounts(*kinds: tuple[str, str]) -> Callable[..., list[SimpleNamespace]]:
    return lambda **_: [SimpleNamespace(mountpoint=place, fstype=kind) for place, kind in kinds]


@pytest.mark.parametrize(
    ("kind", "warned"), [("nfs4", True), ("cifs", True), ("fuse.sshfs", True), ("ext4", False)]
)
def test_a_network_file_system_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, warned: bool
) -> None:
    mounts = _mounts(("/", "overlay"), (str(tmp_path), kind), (f"{tmp_path}/other", "nfs"))
    monkeypatch.setattr(psutil, "disk_partitions", mounts)
    (tmp_path / "folder").mkdir()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Ledger(tmp_path / "folder" / "l.db") as ledger:
            ledger.record(EVALUATION)  # It warns; it does not refuse.
    said = [str(each.message) for each in caught if each.category is UserNotice]
    assert len(said) == warned
    if warned:
        assert f"{tmp_path}/folder/l.db is on a network file system ({kind})" in said[0]
        assert "give a --db on a local disk" in said[0]


def test_the_file_system_of_a_link_is_that_of_its_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far")
    mounts = _mounts(("/", "ext4"), (str(tmp_path / "far"), "nfs"))
    monkeypatch.setattr(psutil, "disk_partitions", mounts)
    assert file_system(tmp_path / "link" / "l.db") == "nfs"
    assert file_system(tmp_path / "l.db") == "ext4"
    monkeypatch.setattr(psutil, "disk_partitions", _mounts())
    assert file_system(tmp_path / "l.db") == ""


def _read_only_file(folder: Path) -> Path:
    path = folder / "l.db"
    Ledger(path).close()
    path.chmod(0o444)
    return path


def _read_only_folder(folder: Path) -> Path:
    (folder / "closed").mkdir(mode=0o555)
    return folder / "closed" / "l.db"


def _not_sqlite(folder: Path) -> Path:
    (folder / "text.db").write_text("benchmark,score\n" * 200)
    return folder / "text.db"


def _other_version(folder: Path) -> Path:
    path = folder / "l.db"
    Ledger(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 5")
    connection.close()
    return path


def _damaged(folder: Path) -> Path:
    path = folder / "l.db"
    Ledger(path).close()
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\xff" * 3000 + content[3100:])
    return path


def _stranger(folder: Path) -> Path:
    with sqlite3.connect(folder / "s.db") as connection:
        connection.execute("CREATE TABLE bookmarks (url)")
    connection.close()
    return folder / "s.db"


# As root, mode bits do not stop a write: the first two cover our own look at them. Nobody can
# make a file in /proc, root included: there the system refuses.
@pytest.mark.parametrize(
    ("place", "message"),
    [
        (_read_only_file, "is read-only"),
        (_read_only_folder, "read-only folder"),
        (lambda _: Path("/proc/self/rilbench.db"), "folder|cannot be opened"),
        (lambda folder: folder / "none" / "l.db", "does not exist"),
        (lambda folder: _not_sqlite(folder) / "l.db", "does not exist"),
        (lambda folder: folder, "is a folder"),
        (_not_sqlite, "is not an SQLite database"),
        (_other_version, "is a ledger of schema 5, but this rilbench reads schema 9; use the "),
        (_damaged, "is damaged .*; rilbench ledger recover .* NEW.db saves what can be read"),
        (_stranger, "another program"),
    ],
)
def test_a_place_that_cannot_be_written(
    tmp_path: Path, place: Callable[[Path], Path], message: str
) -> None:
    path = place(tmp_path)
    before = sorted(tmp_path.rglob("*")), path.read_bytes() if path.is_file() else None
    with pytest.raises(UserError, match=message) as caught:
        Ledger(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value)  # The remedy.
    assert (sorted(tmp_path.rglob("*")), path.read_bytes() if path.is_file() else None) == before


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="only where there is /proc")
def test_the_systems_refusal_is_put_into_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """With our own look at the mode bits out of the way, SQLite's error must do."""
    monkeypatch.setattr("rilbench.ledger.database.require_writable", lambda _: None)
    with pytest.raises(UserError, match="cannot be opened; make"):
        Ledger(Path("/proc/self/rilbench.db"))


@pytest.mark.parametrize(
    "place", [_not_sqlite, _other_version, _damaged, _stranger, lambda folder: folder]
)
def test_reading_says_the_same(tmp_path: Path, place: Callable[[Path], Path]) -> None:
    with pytest.raises(UserError):
        Ledger.open_read(place(tmp_path))


def test_reading_from_a_read_only_place(tmp_path: Path) -> None:
    folder = tmp_path / "shipped"
    folder.mkdir()
    with Ledger(folder / "l.db") as ledger:
        ledger.record(EVALUATION)
    (folder / "l.db").chmod(0o444)
    folder.chmod(0o555)
    with Ledger.open_read(folder / "l.db") as ledger:
        assert len(ledger.evaluations()) == 1
        assert [file.name for file in folder.iterdir()] == ["l.db"]
    folder.chmod(0o755)


def test_a_writer_that_waits_too_long_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rilbench.ledger.database._PATIENCE", 0.1)
    path = tmp_path / "l.db"
    with Ledger(path) as one, Ledger(path) as two:
        one._connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(UserError, match="held by another program"):
            two.record(EVALUATION)


def test_the_import_is_light() -> None:
    code = "import sys, rilbench.ledger; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=os.environ
    ).stdout.split()
    assert not {"torch", "pandas", "numpy", "sqlite_utils"} & set(loaded)
