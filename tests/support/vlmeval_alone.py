"""VLMEvalKit by itself: its own evaluation of given answers, with nothing of rilbench.

Runs under the kit's Python: ``vlmeval_alone.py DATA JUDGED ANSWERS OUT``. DATA has the kit's TSV
files; JUDGED names the datasets that a judge decides; ANSWERS is {dataset: {index: text}}; OUT gets
{dataset: the kit's result as records}. Three things are not the kit's: files that it does not know
are not downloaded over; a file in /tmp that it names by the second is this process's own; and where
it guesses an option it is never lucky, since its log hides lucky guesses.
"""

import json
import os
import sys
from pathlib import Path

os.environ.update({"LMUData": sys.argv[1]})

from vlmeval.dataset import DATASET_CLASSES, build_dataset
from vlmeval.dataset.utils import multiple_choice


class NoLuck:
    """In the place of ``random``."""

    @staticmethod
    def choice(options):
        """No option of a question."""
        return "Z"


multiple_choice.rd = NoLuck
multiple_choice.timestr = lambda: f"alone-{os.getpid()}"

for kind in DATASET_CLASSES:
    if getattr(kind, "DATASET_MD5", None):
        kind.DATASET_MD5 = {}

results = {}
for name, answers in json.loads(Path(sys.argv[3]).read_text()).items():
    dataset = build_dataset(name)
    table = dataset.data
    table = table[[str(index) in answers for index in table["index"]]].drop(columns="image")
    table["prediction"] = [answers[str(index)] for index in table["index"]]
    Path(name).mkdir()
    file = f"{name}/model_{name}.xlsx"
    table.to_excel(file, index=False)
    judge = "gpt-4-turbo" if name in sys.argv[2].split(",") else "exact_matching"
    found = dataset.evaluate(file, model=judge, nproc=8, verbose=False, retry=3)
    Path(f"/tmp/{multiple_choice.timestr()}.xlsx").unlink(missing_ok=True)  # the kit leaves it
    results[name] = found.astype(object).where(found.notna(), None).to_dict("records")
Path(sys.argv[4]).write_text(json.dumps(results))
