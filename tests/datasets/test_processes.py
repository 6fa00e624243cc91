import os
from functools import partial

from src.datasets.processes import in_processes


def whose(offset: int, item: int) -> tuple[int, int]:
    return item + offset, os.getpid()


def test_results_keep_the_items_order_in_any_number_of_processes():
    alone, together = (in_processes(partial(whose, 3), list(range(20)), workers, "test") for workers in (1, 2))
    assert [value for value, _ in alone] == [value for value, _ in together] == list(range(3, 23))
    assert {pid for _, pid in alone} == {os.getpid()} and os.getpid() not in {pid for _, pid in together}
