# Two images: `gpu` for nodes with NVIDIA GPUs, `cpu` (built when none is named) for all that needs
# none: the nano students, evaluation of endpoints, the table.
#
#   docker build --tag rilbench .
#   docker run --rm -it rilbench make demo
#
#   docker build --target gpu --tag rilbench:gpu .
#   docker run --rm -it --gpus all --shm-size 16g rilbench:gpu rilbench doctor
#
# Runs, the ledger and the kits' environments are the container's: mount /rilbench/runs and
# /home/rilbench/.cache, and give --db a mounted path, to keep them. No image was built where this
# was written: its steps were run one by one (tests/test_dockerfile.py), the gpu image's on no GPU.

# The CUDA of torch's wheels; with its compiler, as vLLM's kernels are built when they are first used.
FROM nvidia/cuda:13.0.2-devel-ubuntu24.04 AS gpu
# Versions in a distribution's archive are replaced, not kept: none can be pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        build-essential ca-certificates git make python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 10001 rilbench && install --directory --owner rilbench /rilbench
USER 10001
WORKDIR /rilbench
# With .git, so that scores name the commit of the code.
COPY --chown=rilbench . .
RUN make setup-gpu
ENV PATH="/rilbench/.venv/bin:$PATH" OMP_NUM_THREADS=1
HEALTHCHECK --interval=5m --timeout=1m CMD ["rilbench", "doctor"]
CMD ["rilbench", "--help"]

FROM python:3.11-slim-bookworm AS cpu
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 10001 rilbench && install --directory --owner rilbench /rilbench
USER 10001
WORKDIR /rilbench
COPY --chown=rilbench . .
RUN make setup
ENV PATH="/rilbench/.venv/bin:$PATH" OMP_NUM_THREADS=1
HEALTHCHECK --interval=5m --timeout=1m CMD ["rilbench", "doctor"]
CMD ["rilbench", "--help"]
