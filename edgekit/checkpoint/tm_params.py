"""A Hugging Face directory with tm_params.pth beside it: the linear layers that Saten's training code writes.

model.safetensors holds the other weights, or all of them: a layer of tm_params.pth stands for the weight of its name.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekit.checkpoint.hugging_face import HuggingFaceCheckpoint
from edgekit.checkpoint.interface import Array, TensorSpec
from edgekit.errors import CheckpointError

if TYPE_CHECKING:
    from edgekit.compress.saten.tm_params import TrainedLayer

FILE = "tm_params.pth"


def is_tm_params_directory(path: Path) -> bool:
    """Whether the layers' file is there."""
    return (path / FILE).is_file()


class TmParamsCheckpoint(HuggingFaceCheckpoint):
    """Opens the directory; layers appear as the dense float32 matrices that they stand for. Reading them needs torch.

    Raises:
        CheckpointError: as `HuggingFaceCheckpoint`, and for a damaged tm_params.pth when it is first read.
    """

    format = "tm_params"

    @cached_property
    def _layers(self) -> dict[str, TrainedLayer]:
        try:
            from edgekit.compress.saten.tm_params import read_tm_params
        except ImportError:
            raise CheckpointError(
                f"{FILE} is read with torch", "torch is not installed here", "pip install 'edgekit[export]'"
            ) from None
        return read_tm_params(self.path / FILE)

    @cached_property
    def _made(self) -> dict[str, Array]:
        """Biases that layers bring along."""
        biases = {f"{name}.bias": layer.bias for name, layer in self._layers.items()}
        return {name: bias.float().numpy() for name, bias in biases.items() if bias is not None}

    def names(self) -> list[str]:
        plain = super().names()
        own = [f"{name}.weight" for name in self._layers]
        return [*plain, *(name for name in [*own, *self._made] if name not in plain)]

    def spec(self, name: str) -> TensorSpec:
        layer = self._layers.get(name.removesuffix(".weight"))
        if layer is not None and name.endswith(".weight"):
            rows, columns = layer.residual.shape
            numbers = layer.train.shape.parameters(layer.train.ranks) + int(layer.mask.sum())
            return TensorSpec(name, (rows, columns), "tensor train + residual", 4 * numbers)
        if name in self._made:
            return TensorSpec(name, self._made[name].shape, "float32", self._made[name].nbytes)
        return super().spec(name)

    def array(self, name: str) -> Array:
        layer = self._layers.get(name.removesuffix(".weight"))
        if layer is not None and name.endswith(".weight"):
            return np.ascontiguousarray(layer.dense().float().numpy())
        return self._made[name] if name in self._made else super().array(name)

    def file_paths(self) -> list[Path]:
        return [*super().file_paths(), self.path / FILE]
