"""The estimate against what an export really takes, as far as sizes can tell it."""

from __future__ import annotations

import pytest

from edgekit.checkpoint import Checkpoint, open_checkpoint
from edgekit.compress.quantizer import carried_over, may_carry_over
from edgekit.export.estimate import estimate
from edgekit.export.options import ExportOptions


@pytest.fixture
def smollm2(smollm2_path: object) -> Checkpoint:
    return open_checkpoint(str(smollm2_path))


@pytest.mark.model
def test_calibration_is_counted_only_where_it_is_needed(smollm2: Checkpoint) -> None:
    carried, rounded = ExportOptions("int4"), ExportOptions("int4", carry_over=False)
    assert estimate(smollm2, rounded).seconds > 2 * estimate(smollm2, carried).seconds
    assert estimate(smollm2, rounded).peak_memory_bytes > estimate(smollm2, carried).peak_memory_bytes + 500e6


@pytest.mark.model
@pytest.mark.parametrize("form", ["ort", "portable"])
@pytest.mark.parametrize("dtype", ["int4", "int8"])
@pytest.mark.parametrize("block", [32, 64])
def test_types_that_may_be_carried_over_are_those_that_are(
    smollm2: Checkpoint, form: str, dtype: str, block: int
) -> None:
    settings = ExportOptions(dtype, form=form, block_size=block).quantization
    assert settings is not None
    for name in ("model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"):
        matrix = carried_over(smollm2, name, settings)
        kept = matrix is not None and matrix.bits == settings.bits
        assert kept == may_carry_over(smollm2.spec(name).dtype, settings)


@pytest.mark.model
def test_the_weight_file_is_estimated_within_a_tenth(smollm2: Checkpoint) -> None:
    # 134.5 M weights: float32; 8 bits and a float32 scale per 32.
    assert estimate(smollm2, ExportOptions("fp32")).bytes_on_disk == pytest.approx(540.3e6, rel=0.1)
    assert estimate(smollm2, ExportOptions("int8")).bytes_on_disk == pytest.approx(158.2e6, rel=0.1)
