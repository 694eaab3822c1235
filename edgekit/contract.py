"""Names, axes and element types of a graph's inputs and outputs: of decoders, and of encoders.

Export writes them, build reads them, the runtime binds them: this is the only place that spells them. The names are
those of Hugging Face exports, so that a stock onnxruntime-genai can bind the same graph.

Shapes: B batch, S new tokens, P past tokens, T = P + S, C cache capacity, K kept positions, V vocabulary,
G key/value heads, D head size. A layer's cache is a tuple of tensors: keys and values, or factors of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

#: The domain of our own operators.
OPERATOR_DOMAIN = "edgekit"
#: How the name of a product ends whose matrix keeps two of every four inputs, for the builder of an engine.
TWO_OF_FOUR = ".two_of_four"

#: What a bundle's model is. A decoder continues a text, with a cache; an encoder makes one vector of a text, without.
KIND_DECODER, KIND_ENCODER = "decoder", "encoder"
KINDS = (KIND_DECODER, KIND_ENCODER)

_Size = TypeVar("_Size", int, str)

INPUT_IDS = "input_ids"
ATTENTION_MASK = "attention_mask"
#: How many positions get logits, counted from the end; 0 for all. onnxruntime-genai knows it by this name.
LOGITS_TO_KEEP = "num_logits_to_keep"
LOGITS = "logits"

#: Input of encoders that tell the two texts of a pair apart, int64 [B, S]; zeros for a single text.
TOKEN_TYPE_IDS = "token_type_ids"
#: Output of an encoder, float32 [B, hidden], under the name that sentence-transformers gives it.
SENTENCE_EMBEDDING = "sentence_embedding"
#: How an encoder makes one vector of a text: the mean of its tokens' vectors, or the first token's vector.
POOLING_MEAN, POOLING_CLS = "mean", "cls"
POOLINGS = (POOLING_MEAN, POOLING_CLS)

#: Output of a decoder that has draft heads: float32 [B, K, F], the residual stream of the layers that the heads read,
#: side by side, at the positions that get logits.
DRAFT_FEATURES = "draft_features"
#: The draft graph, a second model beside the decoder. Inputs: `draft_features` float32 [B, F] of the last position in
#: the cache, the token chosen after it, int64 [B], and, where not all components are computed, noise [B, r] that is
#: added to the log weights before the c largest are taken (0 for the likeliest, Gumbel noise to draw them). A graph
#: that sees a window of W earlier positions takes features [B, P, F] and tokens [B, P] of the P positions that are new
#: to it, oldest first, and `draft_past` float32 [B, W, N], what it kept of those before: zeros where there are none.
DRAFT_TOKEN = "draft_token"
DRAFT_NOISE = "draft_noise"
DRAFT_PAST = "draft_past"
#: Outputs: log weights of the c components, float32 [B, c], normalised over them; and what each says of the n tokens
#: after the last `draft_token`, float32 [B, n, c, D], over the D tokens of the draft vocabulary; each row sums to 1.
#: Where there is a window, `draft_present` float32 [B, W, N] too: the next `draft_past`.
DRAFT_LOG_WEIGHTS = "draft_log_weights"
DRAFT_PROBABILITIES = "draft_probabilities"
DRAFT_PRESENT = "draft_present"

AXIS_BATCH = "batch_size"
AXIS_SEQUENCE = "sequence_length"
AXIS_TOTAL = "total_sequence_length"
AXIS_PAST = "past_sequence_length"
AXIS_CAPACITY = "cache_capacity"
#: Of an attention mask that may be longer than the tokens, with -1 in the slots after them: from T to C.
AXIS_SLOTS = "cache_slots"
AXIS_KEPT = "kept_sequence_length"
#: Of a draft graph that sees a window: P, positions that are new to it, and the most of them. A draft after a pause
#: begins with so many, and sees none before them.
AXIS_NEW = "new_positions"
DRAFT_POSITIONS = 32

#: The cache that grows by concatenation: present is a new tensor of P + S tokens.
CACHE_CONCAT = "concat"
#: The cache whose past and present are one buffer for C tokens, written in place.
CACHE_SHARED = "shared"
#: Of an encoder, which keeps nothing from one call to the next.
CACHE_NONE = "none"

FORM_PORTABLE = "portable"
FORM_ORT = "ort"
#: For TensorRT 10.15 and newer and for TensorRT-RTX.
FORM_TENSORRT = "tensorrt"
#: For TensorRT 10.3, which JetPack 6 ships: opset 20, and custom operators as plugins only.
FORM_JETPACK6 = "jetpack6"
FORMS = (FORM_ORT, FORM_PORTABLE, FORM_TENSORRT, FORM_JETPACK6)


#: Caches of grouped-query attention: rotated keys and values.
KEY, VALUE = "key", "value"
#: Caches of factorised attention (`edgekit::TPAAttention`): factors over the heads (a) and over the features (b).
KEY_A, KEY_B, VALUE_A, VALUE_B = "key_a", "key_b", "value_a", "value_b"
#: Cache of keys that are rebuilt and rotated when read.
KEY_LATENT = "key_latent"

#: Where the tokens stand in a cache tensor, by the end of its name: [B, G, tokens, D] for keys and values,
#: [B, tokens, rank, width] for factors.
SEQUENCE_AXES = {KEY: 2, VALUE: 2, KEY_A: 1, KEY_B: 1, VALUE_A: 1, VALUE_B: 1, KEY_LATENT: 1}


@dataclass(frozen=True)
class CacheTensor:
    """One of the tensors in which a layer keeps its earlier tokens.

    Attributes:
        suffix: the end of its graph names, a key of `SEQUENCE_AXES`.
        sizes: its two sizes beside batch and tokens, in order: (G, D) of [B, G, tokens, D], or (rank, width) of
            [B, tokens, rank, width].
    """

    suffix: str
    sizes: tuple[int, int]

    @property
    def axis(self) -> int:
        """The axis along which tokens lie."""
        return SEQUENCE_AXES[self.suffix]

    @property
    def numbers(self) -> int:
        """How many numbers it holds per token."""
        return self.sizes[0] * self.sizes[1]

    def shape(self, batch: _Size, tokens: _Size) -> tuple[_Size | int, ...]:
        """Its shape for that many tokens, as numbers or as names of axes."""
        first, second = self.sizes
        return (batch, first, tokens, second) if self.axis == 2 else (batch, tokens, first, second)


#: The cache tensors of one layer, in graph order.
LayerCache = tuple[CacheTensor, ...]


def key_value_cache(kv_heads: int, head_dim: int) -> LayerCache:
    """The cache of grouped-query attention."""
    return CacheTensor(KEY, (kv_heads, head_dim)), CacheTensor(VALUE, (kv_heads, head_dim))


def past_name(layer: int | str, suffix: str) -> str:
    """Input: a cache tensor of the earlier tokens, "past_key_values.0.key"."""
    return f"past_key_values.{layer}.{suffix}"


def present_name(layer: int | str, suffix: str) -> str:
    """Output: the same tensor including the new tokens, "present.0.key"."""
    return f"present.{layer}.{suffix}"


def hidden_tap(index: int) -> str:
    """Internal tensor: the residual stream after `index` layers (0 is the embedding), [B, S, hidden]."""
    return f"hidden.{index}"


@dataclass(frozen=True)
class TensorSignature:
    """One graph input or output: its name, ONNX element type in lower case ("int64", "float32") and symbolic shape."""

    name: str
    dtype: str
    shape: tuple[str | int, ...]


def decoder_inputs(caches: Sequence[LayerCache], cache_dtype: str) -> list[TensorSignature]:
    """Inputs of a decoder in graph order, given each layer's cache."""
    signature = [
        TensorSignature(INPUT_IDS, "int64", (AXIS_BATCH, AXIS_SEQUENCE)),
        TensorSignature(ATTENTION_MASK, "int64", (AXIS_BATCH, AXIS_TOTAL)),
    ]
    for layer, cache in enumerate(caches):
        for tensor in cache:
            shape = tensor.shape(AXIS_BATCH, AXIS_PAST)
            signature.append(TensorSignature(past_name(layer, tensor.suffix), cache_dtype, shape))
    signature.append(TensorSignature(LOGITS_TO_KEEP, "int64", (1,)))
    return signature


def decoder_outputs(caches: Sequence[LayerCache], cache_dtype: str, vocab: int) -> list[TensorSignature]:
    """Outputs of a decoder in graph order, given each layer's cache."""
    signature = [TensorSignature(LOGITS, "float32", (AXIS_BATCH, AXIS_KEPT, vocab))]
    for layer, cache in enumerate(caches):
        for tensor in cache:
            shape = tensor.shape(AXIS_BATCH, AXIS_TOTAL)
            signature.append(TensorSignature(present_name(layer, tensor.suffix), cache_dtype, shape))
    return signature


def encoder_inputs(token_types: bool) -> list[TensorSignature]:
    """Inputs of an encoder in graph order. Padding is at the right, with zeros in the attention mask."""
    names = [INPUT_IDS, ATTENTION_MASK, *([TOKEN_TYPE_IDS] if token_types else [])]
    return [TensorSignature(name, "int64", (AXIS_BATCH, AXIS_SEQUENCE)) for name in names]


def encoder_outputs(dimensions: int) -> list[TensorSignature]:
    """Outputs of an encoder whose embeddings have so many dimensions."""
    return [TensorSignature(SENTENCE_EMBEDDING, "float32", (AXIS_BATCH, dimensions))]


def draft_features_output(features: int) -> TensorSignature:
    """The output that a decoder with draft heads has beside those of `decoder_outputs`."""
    return TensorSignature(DRAFT_FEATURES, "float32", (AXIS_BATCH, AXIS_KEPT, features))


def draft_inputs(features: int, rank: int, components: int, window: int = 0, kept: int = 0) -> list[TensorSignature]:
    """Inputs of a draft graph in graph order: noise only where it computes fewer components than there are.

    Args:
        window: W, earlier positions that it sees; kept: N, numbers that it keeps of each.
    """
    new = (AXIS_BATCH, AXIS_NEW) if window else (AXIS_BATCH,)
    signature = [
        TensorSignature(DRAFT_FEATURES, "float32", (*new, features)),
        TensorSignature(DRAFT_TOKEN, "int64", new),
    ]
    if components < rank:
        signature.append(TensorSignature(DRAFT_NOISE, "float32", (AXIS_BATCH, rank)))
    if window:
        signature.append(TensorSignature(DRAFT_PAST, "float32", (AXIS_BATCH, window, kept)))
    return signature


def draft_outputs(
    tokens: int, components: int, vocabulary: int, window: int = 0, kept: int = 0
) -> list[TensorSignature]:
    """Outputs of a draft graph in graph order; see `draft_inputs`."""
    signature = [
        TensorSignature(DRAFT_LOG_WEIGHTS, "float32", (AXIS_BATCH, components)),
        TensorSignature(DRAFT_PROBABILITIES, "float32", (AXIS_BATCH, tokens, components, vocabulary)),
    ]
    if window:
        signature.append(TensorSignature(DRAFT_PRESENT, "float32", (AXIS_BATCH, window, kept)))
    return signature
