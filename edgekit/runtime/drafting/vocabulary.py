"""The tokens that a bundle's draft heads can say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgekit.errors import BundleError

if TYPE_CHECKING:
    from edgekit.bundle import Bundle, DraftInfo


def draft_vocabulary(bundle: Bundle, heads: DraftInfo) -> npt.NDArray[np.int64]:
    """Ids of the tokens that can be drafted, int64 [D], ascending.

    Raises:
        BundleError: the file is missing, or no array of whole numbers.
    """
    path = bundle.file(heads.vocabulary)
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        found, fact = None, str(error)
    else:
        fact = f"it is {found.dtype} {list(found.shape)}"
    if found is None or found.ndim != 1 or found.dtype.kind not in "iu":
        raise BundleError(
            "a draft vocabulary is a list of tokens", f"{path}: {fact}", "export the bundle again: edgekit export"
        )
    tokens: npt.NDArray[np.int64] = found.astype(np.int64)
    return tokens
