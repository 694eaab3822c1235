"""What a session of TensorRT does when something fails while its stream runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from edgekit.errors import BundleError, DoesNotFit, EdgekitError, SessionError
from edgekit.runtime.cuda import Cuda


@contextlib.contextmanager
def running(cuda: Cuda, stream: int, doing: str) -> Iterator[None]:
    """Wait for the stream before an error goes on, with what was being done in its fact.

    Raises:
        EdgekitError: of the same kind as within.
    """
    try:
        yield
    except BaseException as error:
        # What was enqueued may still be running: nothing may change under it. Its error is the one at hand.
        with contextlib.suppress(EdgekitError):
            cuda.synchronize(stream)
        if isinstance(error, EdgekitError):
            raise _while(error, doing) from error
        raise


def _while(error: EdgekitError, doing: str) -> EdgekitError:
    kind = next(kind for kind in (DoesNotFit, BundleError, SessionError, EdgekitError) if isinstance(error, kind))
    return kind(error.rule, f"while {doing}: {error.fact}", error.next_step)
