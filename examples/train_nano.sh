#!/usr/bin/env bash
# Train the nano student by RIL and by Dr.GRPO with the same saved responses, evaluate both, and compare
# them. No GPU; about half an hour on two cores. Running it again continues where it stopped.
set -euo pipefail

train() { # train NAME METHOD: a new run, or the rest of one that was interrupted
    local resume=()
    if [ -d "runs/$1" ]; then resume=(--resume); fi
    rilbench train --recipe both --student nano --method "$2" --run "$1" --seed 1 \
        --set collection.folder=runs/shared-collection "${resume[@]}"
}

train ril-1 ril
train dr-grpo-1 dr-grpo
rilbench eval --model nano:restyled --model runs/ril-1/checkpoint --model runs/dr-grpo-1/checkpoint
rilbench table
rilbench compare runs/dr-grpo-1/checkpoint runs/ril-1/checkpoint
rilbench report ril-1 dr-grpo-1 --out ril-and-dr-grpo.html
