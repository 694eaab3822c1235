"""The layout of Saten's published training code, `tm_params.pth`: tensor trains and dense residuals by layer.

{layer: {factors: [G_k [r_{k−1}, n_k, r_k]], weight: residual E [out, in], mask [out, in], bias or None, in_features,
out_features, dim_list: [n_1 …, m_1 …], rank_list: [1, r_1 …, 1], …}}; the layer computes (X̂ᵀ + E ⊙ mask) x + bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from operator import mul
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgekit.compress.saten.factorisation import Factorisation
from edgekit.compress.saten.tensor_train import TensorTrain
from edgekit.errors import CheckpointError
from edgekit.files import atomic_file


@dataclass(frozen=True)
class TrainedLayer:
    """One linear layer.

    Attributes:
        train: X̂ [in, out].
        residual: E [out, in], all of it.
        mask: bool [out, in], what of it counts.
        bias: [out], or None.
    """

    train: TensorTrain
    residual: Tensor
    mask: Tensor
    bias: Tensor | None = None

    def dense(self) -> Tensor:
        """Ŵ [out, in], of the residual's dtype."""
        return self.train.matrix().T.to(self.residual.dtype) + self.residual * self.mask


def read_tm_params(path: Path) -> dict[str, TrainedLayer]:
    """Layers by name, read without running anything that the file says (`weights_only`). Other entries are left.

    Raises:
        CheckpointError: a file that torch refuses, a layer without one of the entries, or shapes that disagree.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - a damaged or hostile file makes torch raise many kinds
        fact = f"torch refuses it ({type(error).__name__}: {str(error).splitlines()[0][:120]})"
        raise _refused(path, fact) from None
    if not isinstance(content, dict) or not all(isinstance(entry, dict) for entry in content.values()):
        raise _refused(path, "it holds something else")
    return {str(name): _layer(path, str(name), entry) for name, entry in content.items()}


def write_tm_params(path: Path, layers: Mapping[str, TrainedLayer]) -> None:
    """Write the layout, replacing the file in one step."""
    content = {name: _entry(layer) for name, layer in layers.items()}
    with atomic_file(path) as file:
        torch.save(content, file)


def _entry(layer: TrainedLayer) -> dict[str, Any]:
    outputs, inputs = layer.residual.shape
    return {
        "factors": [core.contiguous() for core in layer.train.cores],
        "weight": layer.residual.contiguous(),
        "mask": layer.mask.contiguous(),
        "bias": layer.bias,
        "in_features": inputs,
        "out_features": outputs,
        "dim_list": list(layer.train.shape.modes),
        "rank_list": list(layer.train.ranks),
    }


def _layer(path: Path, name: str, entry: Mapping[str, Any]) -> TrainedLayer:
    missing = [key for key in ("factors", "weight", "mask", "in_features", "out_features") if key not in entry]
    if missing:
        raise _refused(path, f"{name} has no {missing[0]}")
    bias, factors = entry.get("bias"), entry["factors"]
    for key, fits in (
        ("factors", isinstance(factors, list | tuple) and all(isinstance(core, Tensor) for core in factors)),
        ("weight", isinstance(entry["weight"], Tensor)),
        ("mask", isinstance(entry["mask"], Tensor)),
        ("bias", bias is None or isinstance(bias, Tensor)),
        ("in_features", isinstance(entry["in_features"], int)),
        ("out_features", isinstance(entry["out_features"], int)),
    ):
        if not fits:
            raise _refused(path, f"{name}: {key} is {entry[key]!r:.60}")
    cores = tuple(core.detach() for core in factors)
    inputs, outputs = entry["in_features"], entry["out_features"]
    whole = (outputs, inputs)
    if tuple(entry["weight"].shape) != whole or tuple(entry["mask"].shape) != whole:
        raise _refused(path, f"{name}: residual or mask is not {whole}")
    if bias is not None and tuple(bias.shape) != (outputs,):
        raise _refused(path, f"{name}: the bias is {tuple(bias.shape)}, not {(outputs,)}")
    train = TensorTrain(_shape(path, name, cores, inputs, outputs), cores)
    return TrainedLayer(train, entry["weight"].detach(), entry["mask"].bool(), None if bias is None else bias.detach())


def _shape(path: Path, name: str, cores: tuple[Tensor, ...], inputs: int, outputs: int) -> Factorisation:
    """The modes from the cores: the first ones whose product is the inputs, then the outputs."""
    chained = all(core.ndim == 3 for core in cores) and all(
        left.shape[2] == right.shape[0] for left, right in pairwise(cores)
    )
    if not cores or not chained or cores[0].shape[0] != 1 or cores[-1].shape[2] != 1:
        raise _refused(path, f"{name}: the cores {[tuple(core.shape) for core in cores]} are no tensor train")
    modes = [core.shape[1] for core in cores]
    products = list(accumulate(modes, mul))
    if inputs not in products[:-1] or products[-1] != inputs * outputs:
        raise _refused(path, f"{name}: modes {modes} do not multiply up to {inputs} inputs and {outputs} outputs")
    split = products.index(inputs) + 1
    return Factorisation(tuple(modes[:split]), tuple(modes[split:]))


def _refused(path: Path, fact: str) -> CheckpointError:
    return CheckpointError(
        "a tm_params.pth holds, for each layer, factors, weight, mask, in_features and out_features",
        f"{path}: {fact}",
        "take the file that Saten's training code wrote",
    )
