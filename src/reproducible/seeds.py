"""Seeded generators, and settings under which torch repeats itself bit for bit."""

import hashlib
import json
import os

import numpy as np
import torch


def fix_computation(threads: int) -> None:
    """Make torch repeat itself bit for bit: `threads` CPU threads, deterministic kernels, no TF32."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms(True) without importing the compiler
    torch.utils.deterministic.fill_uninitialized_memory = False  # a help for finding bugs, which costs time
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def seed_of(seed: int, *names: object) -> int:
    """A seed in [0, 2^63) for one purpose, e.g. seed_of(0, "train", epoch, index); equal names give equal seeds."""
    digest = hashlib.sha256(json.dumps([seed, *map(str, names)]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def torch_generator(seed: int, *names: object) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(seed, *names))


def numpy_generator(seed: int, *names: object) -> np.random.Generator:
    return np.random.default_rng(seed_of(seed, *names))
