# rilbench on a CPU: the nano student, its evaluation and the table. Not meant for GPUs: there is no
# vLLM in it, and no run on GPUs has been verified yet.
#
#   docker build -t rilbench .
#   docker run --rm -it rilbench make demo
FROM python:3.11-slim-bookworm

RUN apt-get update \
    && apt-get install --yes --no-install-recommends make git \
    && rm -rf /var/lib/apt/lists/*

# With .git, so that scores name the commit of the code.
WORKDIR /rilbench
COPY . .
RUN make setup
ENV PATH="/rilbench/.venv/bin:$PATH" OMP_NUM_THREADS=1

CMD ["rilbench", "--help"]
