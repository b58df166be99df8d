"""How the optimiser is driven over a training run."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """How the optimiser is driven."""

    horizon: int | None = None
    """Steps over which the learning rate falls to 0 along a cosine; None keeps it constant."""
    warmup: int = 50
    """Steps over which it rises from 0."""
    max_grad_norm: float = 5.0
    """The gradient is clipped to this norm."""
    low_precision: bool = False
    """Convolve in bfloat16; two to four times as fast where `bfloat16_is_fast`."""
    n_workers: int = 1
    """Processes that share each batch's tasks, on a CPU; as many train the same parameters bit for
    bit, more or fewer up to rounding. Scripts that ask for several need
    ``if __name__ == "__main__":``."""

    def factor(self, step: int) -> float:
        """What the learning rate is multiplied with at a step, counted from 0."""
        warm = min(1.0, (step + 1) / (self.warmup + 1))
        if self.horizon is None:
            return warm
        return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.horizon)))


def bfloat16_is_fast() -> bool:
    """Whether convolutions are faster in bfloat16: where this processor multiplies matrices in it.

    On an x86 processor with AVX-512's bfloat16 products but without AMX a step of the preset
    ``pixels`` took a quarter longer than in float32 (docs/lab-notes.md, Speed).
    """
    try:
        words = Path("/proc/cpuinfo").read_text("utf-8").split()
    except OSError:
        return False
    return not {"amx_bf16", "bf16"}.isdisjoint(words)
