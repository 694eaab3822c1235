"""Where a step writes what the session gives out: float32 outputs on the GPU, and pinned places to read them from."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from edgekit.errors import BundleError
from edgekit.runtime.cuda import Cuda
from edgekit.runtime.trt_engine import Context, Profile
from edgekit.runtime.trt_memory import DeviceBuffers, Pinned

_ITEM = np.dtype(np.float32).itemsize


class StepOutputs:
    """The outputs [B, K, width] of a decoder, by name. B batch, K kept positions."""

    def __init__(self, cuda: Cuda, widths: Mapping[str, int]) -> None:
        self._cuda, self._widths = cuda, dict(widths)
        self._device = DeviceBuffers(cuda)
        self._host: dict[str, Pinned] = {}
        self._rows = 0

    def make_room(self, rows: int, moving: Callable[[], None]) -> None:
        """Have room for B * K positions. Where memory runs out there is room for none.

        Args:
            moving: called before buffers move.

        Raises:
            DoesNotFit: memory ran out.
        """
        if self._rows >= rows:
            return
        moving()
        self.free()
        self._device.allocate([rows * width * _ITEM for width in self._widths.values()])
        for name, width in self._widths.items():
            self._host[name] = Pinned(self._cuda, (rows * width,), np.float32)
        self._rows = rows

    def bind(self, context: Context, profile: Profile, batch: int, kept: int) -> None:
        """Set the addresses of a context whose shapes are set.

        Raises:
            BundleError: the engine would give another shape.
        """
        for (name, width), address in zip(self._widths.items(), self._device.addresses, strict=True):
            context.address(name, address)
            expected, found = (batch, kept, width), context.output_shape(name)
            if found != expected:
                raise BundleError(
                    f"an engine must give the {name.replace('_', ' ')} of the positions that are asked for",
                    f"{name} would be {list(found)} and not {list(expected)} in profile {profile.index}",
                    "build the engine again: edgekit build BUNDLE --device DEVICE --rebuild",
                )

    def copy(self, rows: int, stream: int) -> None:
        """Enqueue the copies of B * K positions to the host."""
        for (name, width), address in zip(self._widths.items(), self._device.addresses, strict=True):
            self._cuda.copy(self._host[name].address, address, rows * width * _ITEM, stream)

    def arrays(self, batch: int, kept: int) -> dict[str, npt.NDArray[np.float32]]:
        """What was copied, valid until the next step."""
        return {
            name: self._host[name].array[: batch * kept * width].reshape(batch, kept, width)
            for name, width in self._widths.items()
        }

    def free(self) -> None:
        """Give the memory back."""
        self._rows = 0
        self._device.free()
        while self._host:
            self._host.popitem()[1].free()
