"""Names that no file can have, and models that are not here: one line with a remedy that works."""

import pytest
from command import refused, run

LONG = "a" * 300
EVAL = ("eval", "--model", "nano:restyled", "--limit", "1")


@pytest.mark.parametrize(
    "arguments",
    [
        ("eval", "--model", LONG),
        ("eval", "--model", f"nano:{LONG}"),
        (*EVAL, "--db", LONG),
        (*EVAL, "--work", LONG),
        (*EVAL, "--judge", f"{LONG}.py:judge"),
        ("export", "scores", "--out", f"{LONG}.csv"),
        ("import", LONG),
        ("ledger", "backup", LONG),
        ("ledger", "recover", LONG, "new.db"),
        ("ledger", "merge", LONG),
        ("table", "--db", LONG),
        ("report", f"nano:{LONG}"),
        ("report", "9" * 5000),
        ("plan", "--student", LONG),
        ("watch", LONG),
        ("lab", "run", LONG),
        ("view", "--db", LONG),
    ],
    ids=lambda arguments: " ".join(arguments).replace(LONG, "LONG")[:60],
)
def test_a_name_that_no_file_can_have_is_one_line(tmp_path, arguments):
    refused(run(*arguments, cwd=tmp_path))
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".part")]


@pytest.mark.parametrize("command", ["eval", "check"])
def test_a_model_that_is_not_here_is_given_by_the_commands_own_option(tmp_path, baseline, command):
    options = ("--baseline", baseline) if command == "check" else ()
    for name, word in (("nonexist", "nonexist is not on this machine"), ("", "--model is empty")):
        done = run(command, "--model", name, *options, cwd=tmp_path)
        refused(done, word, "--model PATH")
        assert "--set" not in done.stderr


def test_an_unknown_nano_model_names_the_known_ones(tmp_path):
    refused(run("eval", "--model", "nano:big", cwd=tmp_path), "choose from", "72b", "restyled")


@pytest.fixture
def baseline(tmp_path):
    from measured import seeds

    from rilbench.check.update import update_baseline
    from rilbench.ledger import Ledger

    with Ledger(tmp_path / "calibration.db") as ledger:
        ledger.record(next(iter(seeds()))[0])
        update_baseline(ledger, tmp_path / "baseline.json", "one seed")
    return tmp_path / "baseline.json"
