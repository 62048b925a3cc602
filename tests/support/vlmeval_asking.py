"""VLMEvalKit by itself: its own loops that ask a model, with nothing of rilbench.

Runs under the kit's Python: ``vlmeval_asking.py DATA DATASET,… MODEL OUT``. OUT gets
``[begun, ended]`` of each answer, in seconds. MODEL is one of:

- ``sleep:SECONDS``: a local model that takes so long;
- ``local:FOLDER``: the kit's Qwen2.5-VL, put on the CPU;
- ``api:IN_FLIGHT:NAME@URL``: the kit's client of a server at URL (up to ``/v1``), which knows the
  model by this name, with so many requests in flight; 0 for the kit's default.
"""

import inspect
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.update({"LMUData": sys.argv[1]})

import torch
from vlmeval.api import OpenAIWrapper
from vlmeval.dataset import DATASET_CLASSES, build_dataset
from vlmeval.inference import infer_data_job
from vlmeval.vlm.base import BaseModel
from vlmeval.vlm.qwen2_vl.model import Qwen2VLChat

for kind in DATASET_CLASSES:
    if getattr(kind, "DATASET_MD5", None):
        kind.DATASET_MD5 = {}


class Sleeper(BaseModel):
    """Takes its time, and says "A"."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    def generate_inner(self, message, dataset=None):
        """One answer."""
        time.sleep(self.seconds)
        return "A"


class OnCPU(Qwen2VLChat):
    """The kit's own, which insists on a GPU while it loads and when it moves its inputs."""

    def __init__(self, folder):
        import transformers
        from transformers import BatchFeature

        super(Qwen2VLChat, self).__init__(use_custom_prompt=False)
        self.min_pixels = self.max_pixels = self.total_pixels = self.system_prompt = None
        self.verbose = self.post_process = self.use_vllm = self.use_lmdeploy = False
        self.model_path, self.fps, self.nframe, self.FRAME_FACTOR = folder, 2, None, 2
        self.generate_kwargs = {"max_new_tokens": 2048, "do_sample": False}
        self.processor = transformers.AutoProcessor.from_pretrained(folder)
        kind = transformers.Qwen2_5_VLForConditionalGeneration
        self.model = kind.from_pretrained(folder, dtype=torch.float32).eval()
        BatchFeature.to = lambda inputs, _: inputs


def build(name):
    """The model, and the arguments of the kit's loop."""
    kind, value = name.split(":", 1)
    if kind == "sleep":
        return Sleeper(float(value)), {}
    if kind == "local":
        return OnCPU(value), {}
    in_flight, address = value.split(":", 1)
    served, url = address.split("@")
    client = OpenAIWrapper(served, api_base=f"{url}/chat/completions", key="none", verbose=False)
    default = inspect.signature(infer_data_job).parameters["api_nproc"].default
    return client, {"api_nproc": int(in_flight) or default}


torch.cuda.empty_cache = lambda: None
model, arguments = build(sys.argv[3])
times, generate = [], model.generate


def timed(*args, **kwargs):
    """The model's own, with its times."""
    begun = time.monotonic()
    answer = generate(*args, **kwargs)
    times.append([begun, time.monotonic()])
    return answer


model.generate = timed
with tempfile.TemporaryDirectory() as work:
    for name in sys.argv[2].split(","):
        infer_data_job(model, work, "model", build_dataset(name), **arguments)
Path(sys.argv[4]).write_text(json.dumps(times))
