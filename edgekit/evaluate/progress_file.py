"""Finished pieces of a measurement, kept so that an interrupted one goes on where it stopped."""

from __future__ import annotations

import json
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

from edgekit.errors import EdgekitError
from edgekit.files import atomic_write, cache_dir

_SECONDS_BETWEEN_WRITES = 1.0


class RowFile:
    """Rows of JSON in a file that is replaced in one step. Python's JSON keeps every bit of a float.

    Everything that could change a number belongs into the key. How many rows are wanted does not: a row is the same,
    whatever their number.

    Attributes:
        rows: one for each piece that is finished; the owner appends to it.
    """

    def __init__(
        self, key: dict[str, Any], folder: Path | None = None, *, kind: str = "eval", again: str = "--restart"
    ) -> None:
        """Nothing is read yet.

        Args:
            folder: where the file lies; None for the folder `kind` of edgekit's cache.
            again: the option that begins again, for the error about a damaged file.
        """
        self._key, self._again = key, again
        digest = sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        self.path = (folder or cache_dir() / kind) / f"{digest[:32]}.json"
        self.rows: list[Any] = []
        self._written = time.monotonic()

    def load(self) -> None:
        """Take over what an earlier run has finished. Raises EdgekitError when the file is damaged."""
        try:
            document = json.loads(self.path.read_bytes())
            if document["key"] != self._key:
                raise ValueError("it belongs to another measurement")
            self._unpack(document)
        except FileNotFoundError:
            self.rows = []
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise EdgekitError(
                "an interrupted measurement can go on only from a whole file",
                f"{self.path}: {error}",
                f"begin again with {self._again}",
            ) from error

    def save(self) -> None:
        """Put all rows on the disk, unless that was done within the last second."""
        if time.monotonic() - self._written > _SECONDS_BETWEEN_WRITES:
            self.write()

    def write(self) -> None:
        """Put all rows on the disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(self.path, json.dumps({"key": self._key, **self._packed()}))
        self._written = time.monotonic()

    def _packed(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def _unpack(self, document: dict[str, Any]) -> None:
        if not isinstance(document["rows"], list):
            raise ValueError("its rows are no list")
        self.rows = document["rows"]


class ProgressFile(RowFile):
    """The sums of finished windows, as hexadecimal floats, so that a resumed measurement ends with the very bits of an
    uninterrupted one.

    Attributes:
        sums: nats and number of predicted tokens of each window measured so far; the owner appends to it.
    """

    @property
    def sums(self) -> list[tuple[float, int]]:
        """The rows."""
        return self.rows

    def _packed(self) -> dict[str, Any]:
        return {"windows": [[nats.hex(), count] for nats, count in self.rows]}

    def _unpack(self, document: dict[str, Any]) -> None:
        self.rows = [(float.fromhex(nats), int(count)) for nats, count in document["windows"]]
