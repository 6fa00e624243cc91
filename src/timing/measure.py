"""How long a piece of work takes, how much memory and arithmetic it needs, and on what hardware that was measured."""

import ctypes
import gc
import os
import platform
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from src.timing.benchmark_file import PeakMemory, Timing

SAMPLING_SECONDS = 0.002
RESIDENT = (
    "resident set of this process (interpreter, libraries, weights and data), sampled every "
    f"{1000 * SAMPLING_SECONDS:g} ms"
)
ALLOCATED = "memory allocated by torch on the GPU (torch.cuda.max_memory_allocated)"

ATTEND = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
ATTEND_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
ATTENTION_ON_CPU = {  # torch counts attention's fused kernels, but not those of the CPU
    ATTEND: lambda q, k, v, *args, out_shape=None, **options: sdpa_flop_count(q, k, v),
    ATTEND_BACKWARD: lambda grad, q, k, v, *args, out_shape=None, **options: sdpa_backward_flop_count(grad, q, k, v),
}


def synchronise(device: torch.device | str) -> None:
    """Wait until the device has done all it was asked to; CPU work is done when its call returns."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def measure(work: Callable[[], object], warmup: int, repeats: int, device: torch.device | str) -> Timing:
    """Time `work`, which runs on `device`: `warmup` calls that do not count, then `repeats` that do, synchronised.

    raises ValueError when warmup < 0 or repeats < 1
    """
    if warmup < 0 or repeats < 1:
        raise ValueError(
            f"timing with warmup {warmup} and repeats {repeats} is not possible; give warmup >= 0 and "
            "repeats >= 1 (params.yaml benchmark.warmup, benchmark.repeats)."
        )
    for _ in range(warmup):
        work()
    milliseconds = []
    for _ in range(repeats):
        synchronise(device)
        start = time.perf_counter()
        work()
        synchronise(device)
        milliseconds.append(1000 * (time.perf_counter() - start))
    p10, median, p90 = np.percentile(milliseconds, [10, 50, 90])
    return Timing(float(median), float(p10), float(p90), repeats)


def give_back_memory() -> None:
    """Return what was freed to the system: glibc keeps much of it, and a resident set counts that."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim:
        trim(0)


def peak_memory(work: Callable[[], object], device: torch.device | str) -> PeakMemory:
    """Memory of one call of `work`: on CUDA torch's allocations on that GPU, on the CPU the whole process, without what
    it had freed before."""
    if torch.device(device).type == "cuda":
        synchronise(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        synchronise(device)
        return PeakMemory(torch.cuda.max_memory_allocated(device), before, ALLOCATED)

    give_back_memory()
    process, finished = psutil.Process(), threading.Event()
    before = process.memory_info().rss
    samples = [before]

    def sample() -> None:
        while not finished.wait(SAMPLING_SECONDS):
            samples.append(process.memory_info().rss)

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        work()
        samples.append(process.memory_info().rss)
    finally:
        finished.set()
        sampler.join()
    return PeakMemory(max(samples), before, RESIDENT)


def flops(work: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products, convolutions and attention in one call (a multiplication and an
    addition count as two); element-wise work and the rasteriser are not counted."""
    with FlopCounterMode(display=False, custom_mapping=ATTENTION_ON_CPU) as counter:
        work()
    return counter.get_total_flops()


def cpu_name() -> str:
    """The processor's own name where the system tells it, else its architecture."""
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def hardware() -> dict[str, str | int]:
    """What the numbers were measured on; GPU entries only where torch sees a GPU."""
    found = {
        "cpu": cpu_name(),
        "cpu_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.system(),
    }
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(torch.cuda.current_device())
        found |= {"gpu": gpu.name, "gpu_memory_bytes": gpu.total_memory, "cuda": torch.version.cuda}
    return found
