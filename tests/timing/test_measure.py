import mmap
import os
import platform
import time

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from src.timing.benchmark_file import PeakMemory, Timing
from src.timing.measure import cpu_name, flops, hardware, measure, peak_memory


def sleeper(seconds: list[float]):
    """Work that takes these times, one after the other."""
    left = iter(seconds)
    return lambda: time.sleep(next(left))


def test_the_median_ignores_the_warm_up_and_one_slow_call():
    result = measure(sleeper([0.7, 0.01, 0.01, 0.9, 0.01, 0.01]), warmup=1, repeats=5, device="cpu")
    assert result.repeats == 5
    assert 10 <= result.p10_ms <= result.median_ms < 500 < result.p90_ms


def test_percentiles_of_known_times(monkeypatch):
    clock = iter([0, 1, 10, 13, 20, 22, 30, 34, 40, 45])  # 1, 3, 2, 4 and 5 seconds
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    result = measure(lambda: None, warmup=3, repeats=5, device="cpu")
    assert result == Timing(3000.0, pytest.approx(1400.0), pytest.approx(4600.0), 5)
    assert result.per_second == pytest.approx(1 / 3)


def test_every_timed_call_is_synchronised(monkeypatch):
    events = []
    monkeypatch.setattr("src.timing.measure.synchronise", lambda device: events.append(device))
    measure(lambda: events.append("work"), warmup=1, repeats=2, device="cuda")
    assert events == ["work", *["cuda", "work", "cuda"] * 2]


@pytest.mark.parametrize("warmup, repeats", [(-1, 3), (0, 0)])
def test_impossible_counts_are_refused(warmup, repeats):
    with pytest.raises(ValueError, match="benchmark.repeats"):
        measure(lambda: None, warmup, repeats, "cpu")


def test_peak_memory_sees_what_is_gone_at_the_end():
    def work() -> None:
        block = mmap.mmap(-1, 60 * 2**20)  # fresh pages: an allocator may hand out memory that it kept
        np.frombuffer(block, np.uint8)[:] = 1
        time.sleep(0.2)
        block.close()

    result = peak_memory(work, "cpu")
    assert isinstance(result, PeakMemory) and "resident set of this process" in result.what
    assert 50 * 2**20 < result.peak_bytes - result.before_bytes < 200 * 2**20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep what was freed")
def test_peak_memory_leaves_out_what_was_freed_before():
    blocks = [np.ones(10_000, np.uint8) for _ in range(10_000)]  # too small to get pages of their own
    last = blocks[-1]  # keeps the heap from shrinking at its end
    held = psutil.Process().memory_info().rss
    del blocks
    result = peak_memory(lambda: last.sum(), "cpu")
    assert result.peak_bytes < held - 80_000_000


def test_peak_memory_of_work_that_fails():
    with pytest.raises(ZeroDivisionError):
        peak_memory(lambda: 1 / 0, "cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device to allocate on")
def test_peak_memory_on_a_gpu_is_what_torch_allocated():
    result = peak_memory(lambda: torch.empty(2**20, device="cuda").add_(1), "cuda")
    assert result.peak_bytes - result.before_bytes == 4 * 2**20 and "max_memory_allocated" in result.what


def test_flops_of_products_and_convolutions():
    linear = nn.Linear(30, 50, bias=False)
    assert flops(lambda: linear(torch.ones(7, 30))) == 2 * 7 * 30 * 50
    conv = nn.Conv2d(3, 8, 5, padding=2, bias=False)
    assert flops(lambda: conv(torch.ones(2, 3, 10, 12))) == 2 * 2 * 10 * 12 * 8 * 3 * 25


@pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))],
)
def test_flops_of_attention_are_those_of_its_two_products(device):
    q, k = torch.ones(1, 2, 6, 4, device=device), torch.ones(1, 2, 9, 4, device=device)
    attention = 2 * 2 * (2 * 6 * 9 * 4)
    assert flops(lambda: nn.functional.scaled_dot_product_attention(q, k, k)) == attention
    q.requires_grad_()  # backward: the scores once more, and two products for each of the two
    assert flops(lambda: nn.functional.scaled_dot_product_attention(q, k, k).sum().backward()) == attention * 7 // 2


def test_hardware_describes_this_machine():
    found = hardware()
    assert found["cpu"] == cpu_name() != ""
    assert 1 <= found["cpu_cores"] <= os.cpu_count() and found["threads"] == torch.get_num_threads()
    assert found["memory_bytes"] > 2**28
    assert ("gpu" in found) == torch.cuda.is_available()
