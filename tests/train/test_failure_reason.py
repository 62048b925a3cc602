"""The line of an error that tells the cause: the first of a plain one, the last of a traceback."""

import errno

from ray.exceptions import OutOfMemoryError, RayTaskError

from rilbench.train.failure_reason import one_line

MEMORY = """4 worker(s) were killed due to the node running low on memory (ID: 0ab).
Top 10 memory users:
Refer to the documentation on how to address the out of memory issue: https://docs.ray.io/oom.
"""
DIED = """The actor died unexpectedly before finishing this task.
\tclass_name: PolicyWorker
\tpid: 12
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit \
detail: The process is dead, killed by SIGKILL by OOM killer.
"""
TRACE = """\x1b[36mray::PolicyWorker.update()\x1b[39m (pid=1, ip=1.2.3.4)
  File "a.py", line 1, in update
ValueError: the first line
of several
"""


def test_the_memory_monitor_is_named_with_a_remedy():
    told = one_line(OutOfMemoryError(MEMORY))
    assert told.startswith("OutOfMemoryError: 4 worker(s) were killed due to the node running low")
    assert "RAY_memory_usage_threshold" in told
    assert "Refer to" not in told


def test_a_dead_actor_says_how_its_process_ended():
    told = one_line(RuntimeError(DIED))
    assert told.startswith("RuntimeError: The actor died unexpectedly")
    assert "killed by SIGKILL by OOM killer" in told


def test_a_traceback_of_another_process_ends_with_the_cause():
    assert one_line(RuntimeError(TRACE)) == "ValueError: the first line"
    assert one_line(RayTaskError("f", TRACE, KeyError("x"))) == "KeyError: 'x'"


def test_a_full_disk_has_its_file_and_remedy():
    error = OSError(errno.ENOSPC, "No space left on device", "steps/model.pt")
    told = one_line(error)
    assert told == "OSError: [Errno 28] No space left on device: 'steps/model.pt'; make room"


def test_an_error_without_words_has_its_name():
    assert one_line(ValueError()) == "ValueError"
    assert one_line(ValueError("a\nb")) == "ValueError: a"
