#!/usr/bin/env bash
# What only a GPU can show, on a machine with torch, transformers and pytest, without network and
# without installing anything: the equations and the discriminator in bf16 on CUDA against float64,
# then a policy and a discriminator update at the sizes of the paper's students, with random weights.
#
#   bash tests/gpu/run.sh                    # writes results/bench/gpu.json
#   bash tests/gpu/run.sh --out FILE         # and all that tests/gpu/gpu_update.py takes
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
export PYTHONPATH=$PWD OMP_NUM_THREADS=${OMP_NUM_THREADS:-8}
"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available() and
  "tests/gpu/run.sh: torch sees no GPU here; on a CPU, run pytest tests/gpu")'
"$python" -m pytest -p no:cacheprovider tests/gpu/test_equations.py
"$python" tests/gpu/gpu_update.py "$@"
