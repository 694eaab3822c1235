"""Logits of a group of windows in a temporary file."""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from types import TracebackType

import numpy as np

from edgekit.errors import DoesNotFit
from edgekit.files import cache_dir
from edgekit.runtime.session import Logits

#: The file is no larger than this, unless a single window is, and takes at most half of the free space.
MOST_BYTES = 2_000_000_000


class Scratch:
    """Holds float32 logits by window. The file has no name and goes with the process.

    Attributes:
        windows: how many fit at once.
    """

    def __init__(self, context: int, vocabulary: int) -> None:
        """Raises DoesNotFit where there is no room for one window."""
        folder = cache_dir()
        folder.mkdir(parents=True, exist_ok=True)
        window, free = 4 * context * vocabulary, shutil.disk_usage(folder).free
        self.windows = max(1, min(MOST_BYTES, free // 2) // window)
        if window > free // 2:
            raise DoesNotFit(
                "the reference's logits of a window lie on the disk for a while",
                f"they take {window / 1e6:,.0f} MB, half of the free space of {folder} is {free / 2e6:,.0f} MB",
                "free some space, point EDGEKIT_CACHE elsewhere, or choose a smaller --context",
            )
        self._vocabulary = vocabulary
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed at __exit__
        self._places: dict[int, list[tuple[int, int]]] = defaultdict(list)

    def __enter__(self) -> Scratch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def clear(self) -> None:
        """Forget all windows."""
        self._places.clear()
        self._file.seek(0)
        self._file.truncate()

    def add(self, window: int, logits: Logits) -> None:
        """Append a piece [K, V] to a window."""
        place = self._file.seek(0, 2)
        self._file.write(np.ascontiguousarray(logits, np.float32).tobytes())
        self._places[window].append((place, len(logits)))

    def pieces(self, window: int) -> Iterator[Logits]:
        """The pieces of a window, [K, V] each, in the order in which they were added."""
        for place, rows in self._places[window]:
            self._file.seek(place)
            content = self._file.read(4 * rows * self._vocabulary)
            yield np.frombuffer(content, np.float32).reshape(rows, self._vocabulary)
