"""CUDA graphs of decode steps: what a step enqueues, recorded once and launched as a whole.

A graph holds shapes and addresses as they were when it was captured. It serves a later step only if that has the very
same ones, so it is captured for those that came twice in a row, and never where each token makes a tensor longer.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from edgekit.errors import DoesNotFit, SessionError
from edgekit.runtime.cuda import Cuda

#: Graphs kept; each is a few hundred kilobytes of the GPU's memory.
_MOST = 8


class StepGraphs:
    """Runs steps, by a graph where one can be had.

    Attributes:
        launched: steps that a graph has run.
        refused: why no graph can be captured; empty as long as that is not known.
    """

    def __init__(self, cuda: Cuda, stream: int) -> None:
        self._cuda, self._stream = cuda, stream
        self._graphs: dict[Hashable, int] = {}
        self._last: Hashable = None
        self.launched = 0
        self.refused = ""

    def run(self, key: Hashable, enqueue: Callable[[], None], capturable: Callable[[], bool]) -> None:
        """Enqueue a step.

        Args:
            key: equal for steps that enqueue the very same work.
            enqueue: does it on the stream. TensorRT needs to have run once with the shapes that are captured.
            capturable: whether TensorRT offers to be captured.
        """
        graph = self._graphs.get(key)
        if graph is None and key == self._last and not self.refused:
            graph = self._captured(key, enqueue, capturable)
        self._last = key
        if graph is None:
            enqueue()
            return
        self._cuda.launch(graph, self._stream)
        self.launched += 1

    def _captured(self, key: Hashable, enqueue: Callable[[], None], capturable: Callable[[], bool]) -> int | None:
        if not capturable():
            self.refused = "TensorRT does not offer this engine to be captured"
            return None
        try:
            with self._cuda.capturing(self._stream) as found:
                enqueue()
        except (SessionError, DoesNotFit) as error:
            self.refused = error.fact or error.rule
            return None
        while len(self._graphs) >= _MOST:
            self._cuda.destroy_graph(self._graphs.pop(next(iter(self._graphs))))
        self._graphs[key] = found[0]
        return found[0]

    def close(self) -> None:
        """Destroy all graphs."""
        while self._graphs:
            self._cuda.destroy_graph(self._graphs.popitem()[1])
        self._last = None
