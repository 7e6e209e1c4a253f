"""bfloat16 is used only where the hardware multiplies it."""

from __future__ import annotations

import pytest
import torch

from core.config.job import JobConfig
from core.job import make_fabric
from core.precision import fast_bfloat16


@pytest.mark.parametrize(("flags", "fast"), [((False, False), False), ((True, False), True), ((False, True), True)])
def test_a_processor_is_asked_for_both_instruction_sets(
    flags: tuple[bool, bool], fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: flags[0], raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: flags[1], raising=False)
    fast_bfloat16.cache_clear()
    try:
        assert fast_bfloat16("cpu") is fast
        fabric = make_fabric(JobConfig(device="cpu", precision="auto"))
        assert fabric.strategy.precision.precision == ("bf16-mixed" if fast else "32-true")
    finally:
        fast_bfloat16.cache_clear()


def test_other_devices_keep_float32() -> None:
    assert not fast_bfloat16("mps")
