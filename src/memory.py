"""What to do when memory runs out."""

from collections.abc import Iterator
from contextlib import contextmanager

SIGNS = ("out of memory", "can't allocate memory", "cannot allocate memory")  # CUDA; the CPU's allocator; the system
ADVICE = ("data.batch_size=1, a smaller backbone such as model.dinov2_model=dinov2_vits14, "
          "opt.gradient_checkpointing=true, a smaller resolution, or on a GPU opt.precision=bf16-mixed")


@contextmanager
def memory_advice() -> Iterator[None]:
    """Turn running out of memory, on the GPU or the CPU, into a ValueError of one sentence that says what takes less."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        words = str(error).strip().partition("\n")[0]
        if not isinstance(error, MemoryError) and not any(sign in words.lower() for sign in SIGNS):
            raise
        raise ValueError(f"Memory ran out ({words.rstrip('.') or 'the system gave no more'}); what takes less: "
                         f"{ADVICE}.") from error
