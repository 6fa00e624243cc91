"""The same work on many items, in several threads, with the same results in the same order however many there are."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

Input, Output = TypeVar("Input"), TypeVar("Output")
AHEAD_OF_USE = 2  # results per thread that wait to be used


def in_threads(
    function: Callable[[Input], Output], items: Sequence[Input], threads: int, label: str
) -> Iterator[Output]:
    """function(item) for every item, in order, behind a progress bar; few results are held at a time."""
    waiting: deque[Future[Output]] = deque()
    with ThreadPoolExecutor(threads) as pool, tqdm(desc=label, total=len(items)) as bar:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > AHEAD_OF_USE * threads:
                yield waiting.popleft().result()
                bar.update()
        while waiting:
            yield waiting.popleft().result()
            bar.update()
