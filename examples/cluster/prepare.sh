#!/usr/bin/env bash
# What the jobs of this folder read: weights in the hub's cache (230 GB) and questions in data/. Run it
# once where the network is, from the repository's folder, after `make setup-gpu`. Again, it goes on.
set -euo pipefail
. .venv/bin/activate

hf download Qwen/Qwen2.5-VL-7B-Instruct   # the student
hf download Qwen/Qwen2.5-VL-72B-Instruct  # the teacher of the recipe 72b
hf download Qwen/Qwen2.5-32B-Instruct     # the judge
if [ ! -f data/open-40k.parquet ]; then
    rilbench data build open-40k --out data/open-40k.parquet
fi
rilbench doctor
