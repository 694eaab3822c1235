"""The constants of a draft graph: the heads' own, and what they need of the model, cut down to it.

V vocabulary, D draft vocabulary, d hidden size, t numbers per known token, n drafted tokens, r components.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.checkpoint import Checkpoint
from edgekit.compress.blockwise import quantize_blocks
from edgekit.compress.quantizer import QuantizationSettings, QuantizedModel
from edgekit.draft.head_file import DraftFile
from edgekit.export.bind import checkpoint_weight
from edgekit.layers.decoder import Decoder
from edgekit.models.registry import WeightSource, weight_map
from edgekit.rewrite.weights import Array, Weight

Floats = npt.NDArray[np.float32]

TOKEN_TABLE = "token.table"
DISTANCE = "attention.distance"
COMPONENT_DOWN, COMPONENT_UP = COMPONENTS = ("component.down", "component.up")

_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
#: Kept as it is: its few numbers decide which components are computed.
_PLAIN = ("mixture.weight",)
#: At 8 bits beside a decoder of 4. With the unembedding of SmolLM2-135M at 4 bits the likeliest of 8192 tokens stayed
#: the same at 79 % of positions, at 8 bits at 98 %; the distributions' total variation was 0.137 and 0.015, and so much
#: acceptance is lost at most.
_EIGHT_BITS = ("unembedding.weight", TOKEN_TABLE)


@dataclass(frozen=True)
class Storage:
    """How the constants are stored.

    Attributes:
        activations: "float32" or "float16".
        quantization: of the decoder's matrices; None for none.
        quantized_lookup: whether rows of a quantised table can be looked up.
    """

    activations: str
    quantization: QuantizationSettings | None
    quantized_lookup: bool

    @property
    def gathered(self) -> str:
        """Element type of what is gathered, and so not quantised: the components' weights."""
        return self.activations if self.quantization is None else "float16"

    @property
    def table(self) -> str:
        """Element type of the token table before quantisation."""
        return self.activations if self.quantized_lookup else self.gathered

    def of(self, name: str) -> str:
        """Element type of a constant."""
        return self.table if name == TOKEN_TABLE else self.gathered if name in COMPONENTS else self.activations


def draft_weights(
    found: DraftFile, checkpoint: Checkpoint, model: Decoder, storage: Storage
) -> tuple[dict[str, Weight], QuantizedModel | None]:
    """Constants by name, and the quantised form of the matrices among them; None without quantisation.

    Args:
        model: of the checkpoint, on the meta device: it tells where embedding and head come from.
    """
    values = _own(found)
    sources = weight_map(model)
    head = _loaded(checkpoint, sources[_EMBEDDING if model.lm_head is None else _HEAD])
    values["unembedding.weight"] = head[found.vocabulary.numpy()]
    values[TOKEN_TABLE] = found.table.numpy()
    weights = {name: _weight(name, value, storage.of(name)) for name, value in values.items()}
    return weights, _quantized(values, storage)


def _loaded(checkpoint: Checkpoint, source: WeightSource) -> Floats:
    return np.asarray(checkpoint_weight(checkpoint, source).load(), np.float32)


def _own(found: DraftFile) -> dict[str, Floats]:
    """The heads' weights, float32, as the graph reads them.

    A matrix [out, in] ends in .weight. component.down is [r, d, n * k] and component.up [r, n, k, d], so that a
    component's weights lie together and multiply a row from the right. attention.distance is [1, J, H / J, W + 1].
    """
    c = found.heads.config
    state = {name: tensor.detach().numpy().astype(np.float32) for name, tensor in found.heads.state_dict().items()}
    state["down.weight"] = state.pop("down").reshape(-1, c.hidden_size)
    state |= {f"up.{i}.weight": matrix for i, matrix in enumerate(state.pop("up"))}
    down, up = state.pop("component_down"), state.pop("component_up")
    if c.component_rank:
        rows = down.transpose(1, 3, 0, 2).reshape(c.rank, c.hidden_size, c.tokens * c.component_rank)
        state |= {COMPONENT_DOWN: rows, COMPONENT_UP: up.transpose(1, 0, 3, 2)}
    if c.window:
        # Keys come oldest first, so the farthest lies first; by heads that share keys.
        far_first = state.pop(DISTANCE)[:, ::-1]
        state[DISTANCE] = far_first.reshape(1, c.kv_heads, c.heads // c.kv_heads, c.window + 1)
    state["mixture.weight"] = state["mixture.weight"].T
    return {name: np.ascontiguousarray(value) for name, value in state.items()}


def _weight(name: str, value: Array, dtype: str) -> Weight:
    made = Weight(value.shape, dtype, lambda: value.astype(dtype), ("draft", name))
    made.sources = (name,)
    return made


def _quantized(values: dict[str, Floats], storage: Storage) -> QuantizedModel | None:
    """Every matrix rounded to the bits of the decoder's, but without calibration, and the table where it can be."""
    settings = storage.quantization
    if settings is None:
        return None
    result = QuantizedModel(settings)
    for name, value in values.items():
        table = name == TOKEN_TABLE
        if value.ndim != 2 or name in _PLAIN or (table and not storage.quantized_lookup):
            continue
        bits = 8 if name in _EIGHT_BITS else settings.bits
        block = value.shape[1] if settings.for_tensorrt and bits == 8 else settings.block
        result.matrices[name] = quantize_blocks(
            value, bits, block, symmetric=settings.symmetric, positive=settings.for_tensorrt
        )
    return result
