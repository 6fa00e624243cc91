"""The same work on many items, in several processes, with the same results in the same order however many there are."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from typing import Callable, Sequence, TypeVar

import torch
from tqdm import tqdm

Item, Outcome = TypeVar("Item"), TypeVar("Outcome")


def begin_worker() -> None:
    """One computing thread, and no life of its own: a worker ends when the process that started it has been killed."""
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process().sentinel

    def follow() -> None:
        multiprocessing.connection.wait([parent])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def in_processes(job: Callable[[Item], Outcome], items: Sequence[Item], workers: int, label: str) -> list[Outcome]:
    """job(item) for every item, in order, behind a progress bar; one computing thread per process."""
    if workers == 1:
        return [job(item) for item in tqdm(items, label)]
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), begin_worker) as pool:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # workers inherit this: Ctrl-C is for the parent alone
        results = pool.map(job, items)  # starts them
        signal.signal(signal.SIGINT, before)
        try:
            return list(tqdm(results, label, len(items)))
        except KeyboardInterrupt:
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise
