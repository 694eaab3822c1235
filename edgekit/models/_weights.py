"""From a checkpoint's arrays to a model's parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekit.errors import ModelError
from edgekit.layers.decoder import Decoder
from edgekit.layers.encoder import Encoder

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"

#: Tensors that older checkpoints carry and that are computed instead.
_COMPUTED = re.compile(r"(^|\.)rotary_emb\.inv_freq$")

_NUMPY_DTYPES = {torch.float16: np.float16, torch.float32: np.float32, torch.float64: np.float64}

#: Changes between a checkpoint's array and the parameter, by name.
TRANSFORMS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    # Added in float32: next to 1 a small weight would lose its digits in a 16-bit type.
    "plus_one": lambda weight: weight.astype(np.float32) + np.float32(1),
}


class WeightSource(NamedTuple):
    """Where a parameter comes from: a checkpoint tensor and the name of a transform in `TRANSFORMS`, or None."""

    name: str
    transform: str | None


class Spec(Protocol):
    """Shape of a stored tensor."""

    @property
    def shape(self) -> tuple[int, ...]: ...


class Weights(Protocol):
    """The part of `edgekit.checkpoint.Checkpoint` that loading needs."""

    @property
    def config(self) -> dict[str, Any]: ...
    def names(self) -> list[str]: ...
    def spec(self, name: str, /) -> Spec: ...
    def array(self, name: str, /) -> NDArray[Any]: ...


def weight_sources(model: Decoder | Encoder) -> dict[str, WeightSource]:
    """Per parameter the tensor it comes from; names are equal, transforms are the architecture's."""
    sources = {}
    for name, _ in model.named_parameters():
        matching = [change for end, change in model.weight_transforms.items() if name.endswith(end)]
        sources[name] = WeightSource(name, matching[0] if matching else None)
    return sources


def check_weights(model: Decoder | Encoder, checkpoint: Weights) -> None:
    """ModelError unless the checkpoint holds exactly the model's weights in the model's shapes."""
    expected = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    found = {name for name in checkpoint.names() if not _COMPUTED.search(name)}
    rule = f"A {checkpoint.config.get('model_type')} checkpoint must hold the weights of its configuration"
    if missing := sorted(expected.keys() - found):
        raise ModelError(
            f"{rule}: {_listed(expected)}.",
            f"Missing {_listed(missing)}; found {_listed(sorted(found))}.",
            "Check that all files of the checkpoint are there and that config.json belongs to it.",
        )
    unexpected = found - expected.keys()
    if isinstance(model, Encoder):
        unexpected = {name for name in unexpected if not model.unused_weights.fullmatch(name)}
    elif model.lm_head is None and HEAD in unexpected and _head_is_embedding(checkpoint):
        unexpected.remove(HEAD)
    if unexpected:
        raise ModelError(
            f"{rule}: {_listed(expected)}.",
            f"Unexpected {_listed(sorted(unexpected))}.",
            "Check that config.json belongs to the weights (tie_word_embeddings, attention_bias, number of layers).",
        )
    for name, shape in expected.items():
        if (stored := tuple(checkpoint.spec(name).shape)) != shape:
            raise ModelError(
                f"{name} must have shape {list(shape)}, by the configuration.",
                f"The checkpoint's has {list(stored)}.",
                "Check that config.json belongs to the weights.",
            )


def assign_weights(
    model: Decoder | Encoder, checkpoint: Weights, dtype: torch.dtype, wanted: Callable[[str], bool] = lambda name: True
) -> None:
    """Replaces a meta model's parameters, those that are wanted, by the checkpoint's weights, one by one, and fills its
    tables."""
    for name, source in weight_sources(model).items():
        if not wanted(name):
            continue
        array = checkpoint.array(source.name)
        if source.transform is not None:
            array = TRANSFORMS[source.transform](array)
        owner, _, last = name.rpartition(".")
        weight = nn.Parameter(tensor_from_array(array, dtype), requires_grad=False)
        setattr(model.get_submodule(owner), last, weight)
    tables = model.tables() if isinstance(model, Encoder) else model.rope_tables()
    for name, table in tables.items():
        owner, _, last = name.rpartition(".")
        setattr(model.get_submodule(owner), last, table)


def tensor_from_array(array: NDArray[Any], dtype: torch.dtype) -> Tensor:
    """A copy of the array as a tensor of that floating-point dtype, rounded to nearest even."""
    if dtype == torch.bfloat16:
        # NumPy's bfloat16 is unknown to torch: the bits pass as uint16.
        return torch.from_numpy(array.astype(ml_dtypes.bfloat16).view(np.uint16)).view(dtype)
    return torch.from_numpy(array.astype(_NUMPY_DTYPES[dtype]))


def _head_is_embedding(checkpoint: Weights) -> bool:
    """Whether a stored head equals the embedding it is tied to; compared by rows to hold few of them."""
    embedding, head = checkpoint.array(EMBEDDING), checkpoint.array(HEAD)
    rows = range(0, len(embedding), 4096)
    return embedding.shape == head.shape and all(
        np.array_equal(embedding[row : row + 4096], head[row : row + 4096]) for row in rows
    )


def _listed(names: Iterable[str], most: int = 5) -> str:
    """The count and the first few names: 3 (a, b, c)."""
    names = list(names)
    return f"{len(names)} ({', '.join(names[:most])}{', ...' if len(names) > most else ''})"
