"""What is measured block by block against measuring the whole model at once."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from edgekit.checkpoint import open_checkpoint
from edgekit.compress.calibration import measure
from edgekit.compress.layerwise.calibrate import calibrate, joined, metric_of, statistics_file
from edgekit.compress.layerwise.stack import layer_of, stack_of
from edgekit.compress.units import unit_of
from edgekit.layers.pooling import pooled
from edgekit.models.registry import encoder_from_checkpoint, model_from_checkpoint
from edgekit.progress import SilentProgress
from tests.parity.tiny_models import write_checkpoint
from tests.tiny_encoder import write_encoder


def gathered(folder: Path, name: str, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    metric = metric_of(folder, layer_of(name) or 0, name, weight)
    return metric.moments.float(), metric.outputs.float()


@pytest.mark.parametrize("name", ["llama", "qwen3", "t6", "llama_tpa", "gemma3_text"])
def test_a_decoder_is_measured_as_a_whole_one_is(name: str, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_checkpoint(tmp_path / "model", name))
    stack = stack_of(checkpoint, sequences=3, length=16)
    assert calibrate(stack, tmp_path / "work", SilentProgress())
    model = model_from_checkpoint(checkpoint, max_positions=16)
    names = [n for layer in range(stack.layers) for n in stack.linear(layer)]
    assert len(names) >= 2 * 6
    expected = measure(model, stack.passages, {unit_of(n) for n in names}, gradients=True)
    for each in names:
        moments, outputs = gathered(tmp_path / "work", each, model.get_parameter(each))
        torch.testing.assert_close(moments, expected.moments[unit_of(each)], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(outputs, expected.gradients[each], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("case", ["bert", "mpnet"])
def test_an_encoder_is_measured_as_a_whole_one_is(case: str, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_encoder(tmp_path / "model", case))
    stack = stack_of(checkpoint, sequences=3, length=16)
    assert calibrate(stack, tmp_path / "work", SilentProgress())
    model = encoder_from_checkpoint(checkpoint)
    inputs: dict[str, torch.Tensor] = {}
    outputs: dict[str, torch.Tensor] = {}

    def observe(each: str):  # type: ignore[no-untyped-def]
        def hook(module, given, output):  # type: ignore[no-untyped-def]
            x = given[0].detach().flatten(0, -2)
            inputs[each] = inputs.get(each, 0) + x.T @ x

            def backward(gradient: torch.Tensor) -> None:
                outputs[each] = outputs.get(each, 0) + gradient.flatten(0, -2).square().sum(0)

            output.register_hook(backward)

        return hook

    names = [n for layer in range(stack.layers) for n in stack.linear(layer)]
    for each in names:
        model.get_submodule(each.removesuffix(".weight")).register_forward_hook(observe(each))
    model.requires_grad_(True)
    for index, row in enumerate(stack.passages):
        mask = torch.ones_like(row)[None]
        embedding = pooled(model(row[None], mask).tokens, mask, "mean", True)[0]
        signs = torch.randint(0, 2, embedding.shape, generator=torch.Generator().manual_seed(index)) * 2.0 - 1.0
        (embedding @ signs * len(row) ** 0.5).backward()
    count = stack.passages.numel()
    for each in names:
        found = gathered(tmp_path / "work", each, model.get_parameter(each))
        torch.testing.assert_close(found[0], inputs[each] / count, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[1], outputs[each] / count, rtol=1e-3, atol=1e-9)


def test_at_most_one_block_holds_weights(llama: Path) -> None:
    stack = stack_of(open_checkpoint(llama), sequences=2, length=8)
    with stack.loaded(1):
        there = {name for name, parameter in stack.model.named_parameters() if parameter.device.type != "meta"}
        assert there
        assert {layer_of(name) for name in there} == {1}
    assert all(parameter.device.type == "meta" for parameter in stack.model.parameters())


def test_a_calibration_that_was_stopped_goes_on_to_the_same(llama: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(llama)
    assert calibrate(stack_of(checkpoint, sequences=2, length=8), tmp_path / "whole", SilentProgress())
    for allowed in range(6):
        asked = iter([False] * allowed)
        stopped = partial(next, asked, True)
        calibrate(stack_of(checkpoint, sequences=2, length=8), tmp_path / "parts", SilentProgress(), stopped)
    assert calibrate(stack_of(checkpoint, sequences=2, length=8), tmp_path / "parts", SilentProgress())
    for layer in range(2):
        parts = (statistics_file(tmp_path / part, layer).read_bytes() for part in ("parts", "whole"))
        assert len(set(parts)) == 1
    assert not list((tmp_path / "parts").glob("hidden*"))


def test_parts_are_joined_in_order_and_none_may_be_missing() -> None:
    parts = [torch.full((n, 2, 3), float(n)) for n in (2, 1, 3)]
    assert torch.equal(joined(6, iter(parts)), torch.cat(parts))
    with pytest.raises(AssertionError, match="7 passages were to be joined, and there are 6"):
        joined(7, iter(parts))
    with pytest.raises(AssertionError, match="5 passages were to be joined, and there are 6"):
        joined(5, iter(parts))
