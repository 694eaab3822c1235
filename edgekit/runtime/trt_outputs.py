"""Where a step writes what the session gives out: float32 outputs on the GPU, and pinned places to read them from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from edgekit.errors import BundleError
from edgekit.runtime.cuda import Cuda
from edgekit.runtime.trt_engine import Context, Profile, Shape
from edgekit.runtime.trt_memory import DeviceBuffers, Pinned

_ITEM = np.dtype(np.float32).itemsize


class StepOutputs:
    """The outputs of an engine by name, each with the shape of one row after the axes of a step's rows.

    The rows of a decoder are [B, K], B batch and K kept positions; those of a draft graph are [B].
    """

    def __init__(self, cuda: Cuda, shapes: Mapping[str, Shape]) -> None:
        """`shapes`: of one row, fixed."""
        self._cuda, self._shapes = cuda, dict(shapes)
        self._widths = {name: math.prod(shape) for name, shape in shapes.items()}
        self._device = DeviceBuffers(cuda)
        self._host: dict[str, Pinned] = {}
        self._rows = 0

    def make_room(self, rows: int, moving: Callable[[], None] | None = None) -> None:
        """Have room for so many rows. Where memory runs out there is room for none.

        Args:
            moving: called before buffers move, if given.

        Raises:
            DoesNotFit: memory ran out.
        """
        if self._rows >= rows:
            return
        if moving is not None:
            moving()
        self.free()
        self._device.allocate([rows * width * _ITEM for width in self._widths.values()])
        for name, width in self._widths.items():
            self._host[name] = Pinned(self._cuda, (rows * width,), np.float32)
        self._rows = rows

    def bind(self, context: Context, profile: Profile, rows: Shape) -> None:
        """Set the addresses of a context whose shapes are set.

        Raises:
            BundleError: the engine would give another shape.
        """
        for (name, shape), address in zip(self._shapes.items(), self._device.addresses, strict=True):
            context.address(name, address)
            expected, found = (*rows, *shape), context.output_shape(name)
            if found != expected:
                raise BundleError(
                    f"an engine must give the {name.replace('_', ' ')} of the positions that are asked for",
                    f"{name} would be {list(found)} and not {list(expected)} in profile {profile.index}",
                    "build the engine again: edgekit build BUNDLE --device DEVICE --rebuild",
                )

    def copy(self, rows: int, stream: int) -> None:
        """Enqueue the copies of so many rows to the host."""
        for (name, width), address in zip(self._widths.items(), self._device.addresses, strict=True):
            self._cuda.copy(self._host[name].address, address, rows * width * _ITEM, stream)

    def arrays(self, rows: Shape) -> dict[str, npt.NDArray[np.float32]]:
        """What was copied, float32 [*rows, *shape], valid until the next step."""
        count = math.prod(rows)
        return {
            name: self._host[name].array[: count * self._widths[name]].reshape(*rows, *shape)
            for name, shape in self._shapes.items()
        }

    def free(self) -> None:
        """Give the memory back."""
        self._rows = 0
        self._device.free()
        while self._host:
            self._host.popitem()[1].free()
