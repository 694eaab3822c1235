"""What healing trains of a compressed checkpoint's model, and the bytes that this becomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgekit.checkpoint import Checkpoint
from edgekit.checkpoint.compressed import CompressedCheckpoint
from edgekit.compress.layerwise.stack import layer_of
from edgekit.compress.saten.storage import Arrays
from edgekit.errors import ExportError, ModelError
from edgekit.heal.summands import Summands
from edgekit.models._weights import weight_sources

#: What can be trained beside factors and single weights.
ALSO = ("scales", "codes", "norms")
#: Steps of these relative to those of factors and single weights: they were right already.
ALSO_RATE = 0.2
#: The same of a base's codes: few of them are nearly rounded to another, and more at a time is noise.
CODES_RATE = 0.05
#: How they are named among a matrix's parameters.
CODES = "codes"
#: From the parameter that is trained back to the checkpoint's number.
_BACK = {None: 0.0, "plus_one": 1.0}


class Trainable:
    """The trained parts of a student, which is changed in place.

    Attributes:
        parameters: by name, all that is trained.
    """

    def __init__(
        self,
        student: Any,
        checkpoint: CompressedCheckpoint,
        also: tuple[str, ...] = (),
        original: Checkpoint | None = None,
    ) -> None:
        """`original`: the checkpoint that was compressed, near whose weights codes begin. Raises ModelError where there
        is nothing to train."""
        check_also(also)
        plain = dict(student.named_parameters())
        sources = weight_sources(student)
        self._summands: dict[str, tuple[Summands, nn.Parameter]] = {}
        self._norms: dict[str, tuple[nn.Parameter, str | None]] = {}
        self.parameters: dict[str, nn.Parameter] = {}
        modules = {name: module for name, module in student.named_modules() if isinstance(module, nn.Linear)}
        for name, module in modules.items():
            weight = f"{name}.weight"
            if weight not in checkpoint.records or layer_of(weight) is None:
                continue
            summands = Summands(checkpoint.matrix(weight), scales="scales" in also, codes="codes" in also)
            if not summands.parts:
                continue
            near = (
                torch.from_numpy(np.array(original.array(weight), np.float32)) if original and summands.codes else None
            )
            held = nn.Parameter(summands.held(near), requires_grad=False)
            module.weight = held
            parametrize.register_parametrization(module, "weight", summands)
            self._summands[weight] = summands, held
            if summands.codes:
                self.parameters[f"{weight}/{CODES}"] = held
            own = summands.parts.named_parameters()
            self.parameters |= {f"{weight}/{part}": parameter for part, parameter in own}
        if not self._summands:
            raise ModelError(
                "healing trains factors, single weights and, on request, scales and codes of compressed matrices",
                f"{checkpoint.path} holds codes alone",
                "train them with --also codes --also scales, or compress with --method saten-augmented",
            )
        if "norms" in also:
            linear = {f"{name}.bias" for name in modules}
            for name, parameter in plain.items():
                if parameter.dim() == 1 and name not in linear and layer_of(name) is not None:
                    self._norms[sources[name].name] = (parameter, sources[name].transform)
                    self.parameters[name] = parameter
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)

    def groups(self, rate: float) -> list[dict[str, Any]]:
        """Of an optimiser, one per parameter; rates are relative to its root mean square."""
        found = []
        for name, parameter in self.parameters.items():
            _, slash, part = name.partition("/")
            share = ALSO_RATE if not slash or part.partition(".")[2] == "scales" else 1.0
            size = max(float(parameter.detach().square().mean().sqrt()), 1e-6)
            found.append({"params": [parameter], "lr": rate * size * (CODES_RATE if part == CODES else share)})
        return found

    @property
    def nbytes(self) -> int:
        """Of the parameters."""
        return sum(parameter.nbytes for parameter in self.parameters.values())

    def state(self) -> dict[str, Tensor]:
        """The parameters' values."""
        return {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`."""
        for name, parameter in self.parameters.items():
            parameter.copy_(state[name])

    def arrays(self) -> Arrays:
        """All arrays of what is trained, by their names in model.safetensors; norms in float32."""
        found: Arrays = {}
        for weight, (summands, held) in self._summands.items():
            found |= {f"{weight}/{array}": value for array, value in summands.stored(held).arrays().items()}
        for name, (parameter, transform) in self._norms.items():
            found[name] = parameter.detach().numpy() - np.float32(_BACK[transform])
        return found


def check_also(also: tuple[str, ...]) -> None:
    """ExportError for what cannot be trained."""
    if unknown := [name for name in also if name not in ALSO]:
        raise ExportError(
            f"Healing a compressed checkpoint can train {', '.join(ALSO)} beside its factors.",
            f"{unknown[0]!r} was asked for.",
        )
