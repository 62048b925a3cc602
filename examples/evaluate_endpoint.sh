#!/usr/bin/env bash
# Evaluate a model that you only reach through a server of the OpenAI API, with a language model as judge.
#
#   examples/evaluate_endpoint.sh qwen2.5-vl-7b@http://127.0.0.1:8000/v1 qwen2.5-32b@http://127.0.0.1:8001/v1
#
# Keys, if the servers want any: $RILBENCH_ENDPOINT_KEY and $RILBENCH_JUDGE_KEY. They are never written
# anywhere. Data files: `rilbench data download` first, which says how to convert MM-Vet v2, the only one that
# the toolkit does not have; `rilbench data check` lists them.
set -euo pipefail
endpoint=${1:?"MODEL@URL of the model to evaluate"}
judge=${2:?"MODEL@URL of the judge"}

# What it will cost, before anything is asked (0.20 and 0.60 per million tokens in and out are examples).
rilbench eval --suite paper --endpoint "$endpoint" --judge "$judge" --dry-run --price 0.20,0.60
# A small sample first: 20 questions per benchmark. Its scores are never compared with full ones.
rilbench eval --suite paper --endpoint "$endpoint" --judge "$judge" --limit 20
# Everything. Responses that exist already are not requested again.
rilbench eval --suite paper --endpoint "$endpoint" --judge "$judge"
rilbench table
