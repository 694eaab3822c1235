"""What a model makes of each token by itself, and the table that heads read."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn import functional

from edgekit.checkpoint import open_checkpoint
from edgekit.draft.tokens import TokenReader, kept_states, token_states
from edgekit.models.registry import model_from_checkpoint
from tests.parity.tiny_models import write_checkpoint


def test_states_are_those_of_a_text_of_two_tokens(tmp_path: Path) -> None:
    model = model_from_checkpoint(open_checkpoint(write_checkpoint(tmp_path / "m", "llama")))
    found = token_states(model, (1, 3), beginning=7)
    ids = torch.tensor([[7, 200]])
    with torch.no_grad():
        hidden = model(ids, torch.ones_like(ids), model.empty_cache(1), torch.tensor([0])).hidden
    parts = [model.model.embed_tokens.weight[200], hidden[1][0, 1], hidden[3][0, 1]]
    expected = torch.cat([functional.rms_norm(part, part.shape) for part in parts])
    assert found.shape == (len(model.model.embed_tokens.weight), 3 * 64)
    torch.testing.assert_close(found[200].float(), expected, rtol=2e-3, atol=2e-3)
    again = kept_states(tmp_path / "s.npy", model, (1, 3), beginning=7)
    assert again.equal(found)
    model.model.embed_tokens.weight.data.zero_()
    assert kept_states(tmp_path / "s.npy", model, (1, 3), beginning=7).equal(found)


def test_the_table_is_the_projection_of_all_states() -> None:
    reader, states = TokenReader(9, 4, 0), torch.randn(2500, 9).half()
    assert reader.table(states).shape == (2500, 4)
    torch.testing.assert_close(reader.table(states)[1700], reader.weight.detach() @ states[1700].float())
