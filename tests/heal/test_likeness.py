"""What losses of healing are made of."""

from __future__ import annotations

from pathlib import Path

import torch

from edgekit.checkpoint import open_checkpoint
from edgekit.heal.full_attention import layer_output, layers_of
from edgekit.heal.likeness import residual_streams
from edgekit.models.registry import model_from_checkpoint
from tests.parity.tiny_models import write_checkpoint


def test_residual_streams_are_those_of_the_other_forward(tmp_path: Path) -> None:
    model = model_from_checkpoint(open_checkpoint(write_checkpoint(tmp_path / "source", "llama", num_hidden_layers=2)))
    ids = torch.randint(0, 50, (2, 11), generator=torch.Generator().manual_seed(0))
    hidden = model.model.embed_tokens(ids)
    for layer, found in zip(layers_of(model), residual_streams(model, ids)[1:], strict=True):
        hidden = layer_output(model, layer, hidden)
        torch.testing.assert_close(found, hidden, rtol=1e-4, atol=1e-4)
