"""What is logged where."""

import logging
import threading
from contextvars import copy_context
from pathlib import Path

import pytest
from command import run

from rilbench.logs import configure, log_file

log = logging.getLogger("rilbench.some.module")


@pytest.fixture(autouse=True)
def _restore():
    logger = logging.getLogger("rilbench")
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)
    logger.propagate = propagate


def test_quiet_by_default_and_verbose_on_request(capsys):
    configure()
    log.info("reading")
    log.warning("careful")
    assert capsys.readouterr().err.count("careful") == 1
    configure(verbose=True)
    log.info("reading")
    log.debug("detail")
    out, err = capsys.readouterr()
    assert out == ""
    assert "INFO rilbench.some.module: reading" in err
    assert "detail" not in err
    configure()
    log.info("reading")
    assert capsys.readouterr().err == ""


def test_a_handler_of_another_package_repeats_nothing(capsys):
    configure()
    root, theirs = logging.getLogger(), logging.StreamHandler()  # as verl's basicConfig
    root.addHandler(theirs)
    try:
        log.info("reading")
        log.warning("careful")
    finally:
        root.removeHandler(theirs)
    assert capsys.readouterr().err.count("careful") == 1


def test_a_file_gets_every_record_of_its_body_and_is_appended_to(tmp_path, capsys):
    configure()
    file = tmp_path / "runs" / "r" / "logs" / "rilbench.log"
    for word in ("first", "second"):
        with log_file(file):
            log.debug(word)
            thread = threading.Thread(target=log.info, args=(f"{word} thread",))
            thread.start()
            thread.join()
        log.info("outside")
    lines = [line.split(": ", 1)[1] for line in file.read_text().splitlines()]
    assert lines == ["first", "first thread", "second", "second thread"]
    assert capsys.readouterr().err == ""


def test_files_of_runs_in_parallel_do_not_mix(tmp_path):
    def train(name):
        with log_file(tmp_path / name):
            both.wait()
            log.info("run %s", name)
            worker = threading.Thread(target=copy_context().run, args=(log.info, "worker %s", name))
            worker.start()
            worker.join()
            both.wait()

    both = threading.Barrier(2)
    threads = [threading.Thread(target=train, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in ("a", "b"):
        lines = (tmp_path / name).read_text().splitlines()
        assert [line.rsplit(": ", 1)[1] for line in lines] == [f"run {name}", f"worker {name}"]


def test_nothing_is_made_before_the_first_record(tmp_path):
    with log_file(tmp_path / "work" / "rilbench.log"):
        assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk to write to")
def test_a_full_disk_does_not_stop_what_is_logged(capsys):
    configure()
    with log_file(Path("/dev/full")):
        log.info("reading")
    assert capsys.readouterr().err == ""


def test_the_command_line_is_quiet_unless_verbose(tmp_path):
    settings = ("--student", "nano", "--run", "r", "--set", "data.train=missing.parquet")
    command = ("train", "--recipe", "both", *settings)
    quiet = run(*command, cwd=tmp_path)
    assert quiet.stderr.count("\n") == 1
    verbose = run("--verbose", *command, cwd=tmp_path)
    assert "INFO rilbench.train.pipeline.preflight: preflight of runs/r" in verbose.stderr
    assert verbose.stderr.endswith(quiet.stderr)
