import threading
import time

import pytest

from src.reproducible.threads import AHEAD_OF_USE, in_threads


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_the_order_of_the_items(threads):
    def slow_at_first(item: int) -> int:
        time.sleep(0.02 if item == 0 else 0)
        return item * item

    assert list(in_threads(slow_at_first, range(20), threads, "squares")) == [item * item for item in range(20)]
    assert list(in_threads(slow_at_first, [], threads, "squares")) == []


def test_few_results_wait_to_be_used():
    started, lock = [], threading.Lock()

    def note(item: int) -> int:
        with lock:
            started.append(item)
        return item

    results = in_threads(note, range(100), 2, "notes")
    for used in range(10):
        assert next(results) == used
        assert len(started) <= used + 1 + 2 * AHEAD_OF_USE
    results.close()


def test_a_failure_reaches_who_asked():
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda item: 1 // (3 - item), range(50), 2, "quotients"))
