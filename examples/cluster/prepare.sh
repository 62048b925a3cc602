#!/usr/bin/env bash
# What the jobs of this folder read: weights in the hub's cache (230 GB), the benchmarks, and questions in
# data/. Run it once where a GPU and the network are, from the repository's folder, after `make setup-gpu`.
# Again, it goes on. MM-Vet v2 is converted by hand; rilbench data download says how, and stops without it.
set -euo pipefail
. .venv/bin/activate

rilbench data download                    # the 14 benchmarks: questions that are in them are left out
hf download Qwen/Qwen2.5-VL-7B-Instruct   # the student
hf download Qwen/Qwen2.5-VL-72B-Instruct  # the teacher of the recipe 72b
hf download Qwen/Qwen2.5-32B-Instruct     # the judge
if [ ! -f data/open-40k.parquet ]; then
    rilbench data build open-40k --out data/open-40k.parquet
fi
rilbench doctor
