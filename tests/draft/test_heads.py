"""Draft heads: the mixture they compute, how they start, and their file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edgekit.draft.config import DraftConfig
from edgekit.draft.head_file import DraftFile, read_heads, write_heads
from edgekit.draft.heads import DraftHeads
from edgekit.draft.initial import first_heads, grown
from edgekit.errors import CheckpointError
from edgekit.runtime.drafting.cp_mixture import joint
from tests.draft.small import WIDTH, config, frozen, heads

VOCABULARY = torch.arange(0, 34, 2)


def outputs(model: DraftHeads, rows: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """log w [N, r] and p [N, n, r, D] in float64."""
    model, generator = model.double(), torch.Generator().manual_seed(5)
    features = torch.randn(rows, 1, model.config.features, generator=generator, dtype=torch.float64)
    known = torch.randn(rows, 1, model.config.token_rank, generator=generator, dtype=torch.float64)
    u = model.trunk_output(features, known)[:, 0]
    return model.log_weights(u).double(), (model.positions(u) @ frozen().unembedding.double().T).softmax(-1)


def test_a_position_sees_the_window_before_it_and_nothing_else() -> None:
    model, generator = heads().double(), torch.Generator().manual_seed(7)
    features = torch.randn(2, 9, model.config.features, generator=generator, dtype=torch.float64)
    known = torch.randn(2, 9, model.config.token_rank, generator=generator, dtype=torch.float64)
    whole = model.trunk_output(features, known)
    torch.testing.assert_close(model.trunk_output(features, known, 6), whole[:, 6:])
    for place in range(9):
        first = max(0, place - 4)
        alone = model.trunk_output(features[:, first : place + 1], known[:, first : place + 1], place - first)
        torch.testing.assert_close(alone[:, 0], whole[:, place])
    # What is missing is not seen, whatever stands there.
    features[0, :2], known[0, :2] = torch.nan, torch.nan
    features = features.nan_to_num(3.0)
    known = known.nan_to_num(-2.0)
    missing = model.trunk_output(features, known, 2, torch.tensor([2, 0]))
    torch.testing.assert_close(missing[0, 0], model.trunk_output(features[:1, 2:], known[:1, 2:])[0, 0])
    torch.testing.assert_close(missing[1], whole[1, 2:])


def reference_attention(model: DraftHeads, x: torch.Tensor) -> torch.Tensor:
    """What the last position of x [T, d] takes from all, by plain loops."""
    layer = model.attention
    assert layer is not None
    result, share = [], layer.heads // layer.kv_heads
    for head in range(layer.heads):
        rows = slice(head * layer.head_size, (head + 1) * layer.head_size)
        shared = slice(head // share * layer.head_size, (head // share + 1) * layer.head_size)
        query = layer.q_proj.weight[rows] @ x[-1]
        scores = torch.stack(
            [
                query @ (layer.k_proj.weight[shared] @ at) / layer.head_size**0.5
                + layer.distance[head, len(x) - 1 - place]
                for place, at in enumerate(x)
            ]
        ).softmax(0)
        result.append(sum(scores[place] * (layer.v_proj.weight[shared] @ at) for place, at in enumerate(x)))
    return layer.o_proj.weight @ torch.cat([torch.as_tensor(each) for each in result])


def test_attention_is_what_loops_find() -> None:
    model, generator = heads().double(), torch.Generator().manual_seed(3)
    x = torch.randn(5, WIDTH, generator=generator, dtype=torch.float64)
    assert model.attention is not None
    torch.testing.assert_close(model.attention(x[None], 4)[0, 0], reference_attention(model, x))


def test_the_joint_sums_to_one_over_all_drafts() -> None:
    log_w, p = outputs(heads(rank=3, tokens=2))
    total = sum(joint(log_w[0].detach().numpy(), p[0].detach().numpy(), (a, b)) for a in range(17) for b in range(17))
    assert total == pytest.approx(1.0, abs=1e-6)  # weights are normalised in float32


def test_one_component_is_independent_heads() -> None:
    log_w, p = outputs(heads(rank=1))
    weights, found = log_w[0].detach().numpy(), p[0].detach().numpy()
    draft = (3, 0, 16)
    assert joint(weights, found, draft) == pytest.approx(np.prod([found[s, 0, x] for s, x in enumerate(draft)]))


def test_a_mixture_grows_from_a_single_head_without_a_change() -> None:
    single = heads(rank=1)
    mixture = grown(single, config(rank=4), torch.ones(WIDTH), 3)
    (_, before), (log_w, after) = outputs(single), outputs(mixture)
    torch.testing.assert_close(after, before.expand_as(after), rtol=0, atol=1e-12)
    draft = (1, 8, 2)
    old = np.prod([before[0, s, 0, x].item() for s, x in enumerate(draft)])
    assert joint(log_w[0].detach().numpy(), after[0].detach().numpy(), draft) == pytest.approx(old, rel=1e-6)


def test_its_components_learn_different_things() -> None:
    mixture = grown(heads(rank=1), config(rank=4), torch.ones(WIDTH), 3)
    _, p = outputs(mixture)
    p[:, :, :, 3].log().sum().backward()
    gradient = mixture.component_up.grad
    assert gradient is not None
    apart = (gradient[:, 0] - gradient[:, 1]).abs().max()
    assert apart > 0.1 * gradient.abs().max() > 0


def test_fresh_heads_pass_the_last_layer_through() -> None:
    fresh = first_heads(config(), torch.full((WIDTH,), 1.5), 0)
    assert fresh.norm.weight.tolist() == [1.5] * WIDTH
    assert fresh.project.weight[:, WIDTH : 2 * WIDTH].diagonal().mean().item() == pytest.approx(1.0, abs=0.05)


def test_the_file_gives_back_what_was_written(tmp_path: Path) -> None:
    path, written = tmp_path / "h.safetensors", heads(rank=3)
    with torch.no_grad():  # large enough to be rounded, with a row of zeros
        wide = DraftConfig(**{**written.config.to_dict(), "feature_layers": (1, 2), "trunk_width": 512})
        written = first_heads(wide, torch.ones(WIDTH), 0)
        written.trunk.up_proj.weight[7] = 0
    table = torch.randn(40, 5) * torch.tensor([[1.0], [100.0]] * 20)
    write_heads(path, DraftFile(written, table, VOCABULARY, {"acceptance": {"greedy": [0.5]}}))
    found = read_heads(path)
    assert found.heads.config == written.config
    assert found.record == {"acceptance": {"greedy": [0.5]}}
    assert torch.equal(found.vocabulary, VOCABULARY)
    assert ((found.table - table).abs() <= table.abs().amax(1, keepdim=True) / 250).all()
    rounded = 0
    for name, value in found.heads.state_dict().items():
        own = written.state_dict()[name]
        if own.numel() < 4096:
            assert torch.equal(value, own.half().float()), name
        else:
            rounded += 1
            assert ((value - own).abs() <= own.abs().amax(-1, keepdim=True) / 250 + 1e-9).all(), name
    assert rounded == 3
    assert path.stat().st_size < 1.3 * sum(value.numel() for value in written.state_dict().values()) + 3000


@pytest.mark.parametrize(
    "damage",
    ["other kind", "no safetensors", "vocabulary", "table", "scales", "no scale", "shape", "sizes", "huge", "no sizes"],
)
def test_another_file_is_refused(tmp_path: Path, damage: str) -> None:
    path, model = tmp_path / "h.safetensors", heads()
    codes = torch.ones(40, 5, dtype=torch.int8)
    tensors = {
        **model.state_dict(),
        "vocabulary": VOCABULARY.int(),
        "token_table": codes,
        "token_table.scale": torch.ones(40),
    }
    document = {"kind": "edgekit-draft-heads", "config": model.config.to_dict()}
    if damage == "other kind":
        document["kind"] = "lora"
    if damage == "vocabulary":
        tensors["vocabulary"] = VOCABULARY.int().flip(0)
    if damage == "table":
        tensors["token_table"] = codes[:, :3]
    if damage == "scales":
        tensors["token_table.scale"] = torch.ones(39)
    if damage == "no scale":
        del tensors["token_table.scale"]
    if damage == "shape":
        tensors["up"] = tensors["up"][:1]
    if damage == "huge":
        document["config"] = {**model.config.to_dict(), "trunk_width": 10**12}
    if damage == "no sizes":
        document["config"] = ["rank"]
    if damage == "sizes":
        document["config"] = {**model.config.to_dict(), "rank": "many"}
    save_file({name: value.contiguous() for name, value in tensors.items()}, path, {"edgekit": json.dumps(document)})
    if damage == "no safetensors":
        path.write_bytes(b"\x80\x04.")
    with pytest.raises(CheckpointError, match="train them again"):
        read_heads(path)


def test_sizes_survive_json() -> None:
    assert DraftConfig.from_dict(json.loads(json.dumps(config(3).to_dict()))) == config(3)
