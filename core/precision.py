"""Which machines multiply bfloat16 in hardware: elsewhere it is emulated, and up to forty times slower than float32."""

from __future__ import annotations

from functools import cache

import torch


@cache
def fast_bfloat16(device: str) -> bool:
    """Whether ``device`` (``cpu``, ``cuda`` …) computes convolutions and matrix products in bfloat16 natively.

    A processor does with AVX512-BF16 or AMX; on an older one PyTorch emulates it.
    """
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device == "cpu":
        flags = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(bool(getattr(torch.cpu, flag, bool)()) for flag in flags)
    return False


def settled_dtype(precision: str, device: torch.device) -> torch.dtype:
    """``auto`` is bfloat16 where the machine multiplies it in hardware, else float32; or the dtype that is named."""
    if precision == "auto":
        precision = "bfloat16" if fast_bfloat16(device.type) else "float32"
    return getattr(torch, precision)  # type: ignore[no-any-return]
