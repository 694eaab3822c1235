"""Windows that were measured already, so that an interrupted measurement goes on where it stopped."""

from __future__ import annotations

import json
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

from edgekit.errors import EdgekitError
from edgekit.files import atomic_write, cache_dir

_SECONDS_BETWEEN_WRITES = 1.0


class ProgressFile:
    """The sums of finished windows in a file that is replaced in one step.

    Everything that could change a number belongs into the key. Sums are kept as hexadecimal floats, so that a
    resumed measurement ends with the very bits of an uninterrupted one. How many windows are wanted is not part of
    the key: the windows are the same, whatever their number.

    Attributes:
        sums: nats and number of predicted tokens of each window measured so far; the owner appends to it.
    """

    def __init__(self, key: dict[str, Any], folder: Path | None = None) -> None:
        """`folder`: where the file lies; None for edgekit's cache."""
        self._key = key
        digest = sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        self.path = (folder or cache_dir() / "eval") / f"{digest[:32]}.json"
        self.sums: list[tuple[float, int]] = []
        self._written = time.monotonic()

    def load(self) -> None:
        """Take over what an earlier run has measured. Raises EdgekitError when the file is damaged."""
        try:
            document = json.loads(self.path.read_bytes())
            if document["key"] != self._key:
                raise ValueError("it belongs to another measurement")
            self.sums = [(float.fromhex(nats), int(count)) for nats, count in document["windows"]]
        except FileNotFoundError:
            self.sums = []
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise EdgekitError(
                "an interrupted measurement can go on only from a whole file",
                f"{self.path}: {error}",
                "begin again with --restart",
            ) from error

    def save(self) -> None:
        """Put all windows on the disk, unless that was done within the last second."""
        if time.monotonic() - self._written > _SECONDS_BETWEEN_WRITES:
            self.write()

    def write(self) -> None:
        """Put all windows on the disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        windows = [[nats.hex(), count] for nats, count in self.sums]
        atomic_write(self.path, json.dumps({"key": self._key, "windows": windows}))
        self._written = time.monotonic()
