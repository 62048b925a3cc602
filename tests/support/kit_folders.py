"""Result folders that the kits themselves write, with nothing of rilbench."""

import json
import os
import shutil
import subprocess
from pathlib import Path

from rilbench.evaluate.kits.environment import ensure_environment
from rilbench.evaluate.suite import LMMSEVAL, VLMEVALKIT

SUPPORT = Path(__file__).parent
Texts = dict[str, dict[str, str]]
READ_BY_JUDGE = ("MMStar", "MMBench_DEV_EN")
"""Choices for which VLMEvalKit is given a judge."""
FORMS = ["{}", "Let me think. The answer is ({}).", "**{}**", "no idea", "hopeless"]
"""Answers: three forms of the right one, one that a judge reads, one that it does not."""


def run_vlmevalkit(out: Path, tsv: Path, answers: Texts, judged: list[str], url: str) -> Path:
    """The kit's own work folder of a model called ``model``."""
    shutil.copytree(tsv, out / "LMUData")
    (out / "answers.json").write_text(json.dumps(answers))
    settings = {"OPENAI_API_KEY": "none", "OPENAI_API_BASE": f"{url}/chat/completions"}
    settings |= {"LOCAL_LLM": "judge", "OMP_NUM_THREADS": "1"}
    command = [str(ensure_environment(VLMEVALKIT)), str(SUPPORT / "vlmeval_alone.py"), "LMUData"]
    _run([*command, ",".join(judged), "answers.json", "results.json"], out, settings)
    folder = out / "outputs" / "model"
    folder.mkdir(parents=True)
    for name in answers:
        for file in (out / name).iterdir():
            file.rename(folder / file.name)
    return folder


def run_lmmseval(out: Path, hub: Path, answers: Texts, tasks: list[str], url: str) -> Path:
    """The kit's own results of a model called ``lab/tiny``; answers by sub-task and row."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "answers.json").write_text(json.dumps(answers))
    settings = {"OPENAI_API_KEY": "none", "OPENAI_API_URL": url, "MODEL_VERSION": "judge"}
    settings |= {"API_TYPE": "openai", "CACHE": str(out / "cache"), "OMP_NUM_THREADS": "1"}
    settings |= {"HF_HUB_OFFLINE": "1"}
    command = [str(ensure_environment(LMMSEVAL)), str(SUPPORT / "lmms_alone.py"), str(hub)]
    _run([*command, ",".join(tasks), "answers.json", "results.json", "results"], out, settings)
    return out / "results"


def _run(command: list[str], folder: Path, settings: dict[str, str]) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | settings,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
