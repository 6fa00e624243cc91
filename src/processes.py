"""The same work on many items, in several processes, with the same results in the same order however many there are."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Callable, Sequence, TypeVar

import torch
from tqdm import tqdm

Item, Result = TypeVar("Item"), TypeVar("Result")


def in_processes(job: Callable[[Item], Result], items: Sequence[Item], workers: int, label: str) -> list[Result]:
    """job(item) for every item, in order, behind a progress bar; one computing thread per process."""
    if workers == 1:
        return [job(item) for item in tqdm(items, label)]
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        return list(tqdm(pool.map(job, items), label, len(items)))
