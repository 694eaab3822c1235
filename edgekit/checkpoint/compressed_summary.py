"""What `edgekit inspect` tells about compressed matrices: forms, sizes, errors, and which read more than int4 does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from edgekit.checkpoint.compressed import CompressedCheckpoint

#: What plain 4-bit codes take: blocks of 32 with a float16 scale and a 4-bit zero point.
INT4_BITS = 4 + (16 + 4) / 32


#: Of one product: a matrix as it is, and as plain 4-bit codes, in seconds.
Times = Mapping[str, tuple[float, float]]


def compression_summary(checkpoint: CompressedCheckpoint, times: Times | None = None) -> dict[str, Any]:
    """JSON-ready: "matrices", one entry each, and totals of those that were fitted.

    Where memory is the limit (`edgekit.plan.step_cost`) a matrix takes the time of its bytes: "reads_more_than_int4"
    names what has more than plain 4-bit codes. What has fewer is faster only where its operator costs less than that
    saves, which "slower_than_int4" tells by a cost model.

    Args:
        times: by the cost model (`edgekit.compress.saten.cost`), of one token; None where it is not known.
    """
    matrices = [_row(name, record, checkpoint.spec(name).nbytes) for name, record in checkpoint.records.items()]
    for row in matrices:
        own, int4 = times[row["matrix"]] if times and row["method"] != "stored" else (None, None)
        row |= {"product_s": own, "int4_product_s": int4}
    fitted = [row for row in matrices if row["method"] != "stored"]
    weights = sum(math.prod(row["shape"]) for row in fitted)
    nbytes = sum(row["bytes"] for row in fitted)
    return {
        "matrices": matrices,
        "fitted": len(fitted),
        "bytes": nbytes,
        "bits_per_weight": round(8 * nbytes / weights, 4) if weights else None,
        "int4_bytes": int(weights * INT4_BITS / 8),
        "reads_more_than_int4": [
            row["matrix"] for row in fitted if 8 * row["bytes"] > INT4_BITS * math.prod(row["shape"])
        ],
        "product_s": sum(row["product_s"] for row in fitted) if times else None,
        "int4_product_s": sum(row["int4_product_s"] for row in fitted) if times else None,
        "slower_than_int4": _slower(fitted) if times else None,
    }


def _slower(rows: list[dict[str, Any]]) -> list[str]:
    return [row["matrix"] for row in rows if row["product_s"] > row["int4_product_s"]]


def _row(name: str, record: dict[str, Any], nbytes: int) -> dict[str, Any]:
    rows, columns = record["shape"]
    pieces = {piece["kind"]: piece for piece in record["pieces"]}
    base, sparse = pieces.get("base"), pieces.get("sparse")
    modes, ranks = _factors(pieces)
    return {
        "matrix": name,
        "method": record["method"],
        "shape": [rows, columns],
        "form": _form(pieces),
        "base_bits": base["bits"] if base else None,
        "base_block": base["shape"][2] if base else None,
        "modes": modes,
        "ranks": ranks,
        "factors": _dtype(pieces),
        "nonzeros": math.prod(sparse["values"]["shape"]) if sparse else 0,
        "sparse_format": sparse["format"] if sparse else None,
        "values": sparse["values"]["dtype"] if sparse else None,
        "bytes": nbytes,
        "bits_per_weight": round(8 * nbytes / (rows * columns), 4),
        "weighted_error": record["weighted_error"],
        "relative_error": record["plain_error"],
        "loss": record["loss"],
    }


def _factors(pieces: dict[str, Any]) -> tuple[list[int] | None, list[int] | None]:
    """Modes and inner ranks of a train; a pair is one of order 2."""
    if "pair" in pieces:
        (rank, inputs), (_, outputs) = pieces["pair"]["a"]["shape"], pieces["pair"]["b"]["shape"]
        return [inputs, outputs], [rank]
    if "train" in pieces:
        train = pieces["train"]
        return [*train["inputs"], *train["outputs"]], [core["shape"][2] for core in train["cores"][:-1]]
    return None, None


def _dtype(pieces: dict[str, Any]) -> str | None:
    if "pair" in pieces:
        return str(pieces["pair"]["a"]["dtype"])
    return str(pieces["train"]["cores"][0]["dtype"]) if "train" in pieces else None


def _form(pieces: dict[str, Any]) -> str:
    names = {"base": "codes", "pair": "low rank", "train": "tensor train", "sparse": "sparse"}
    return " + ".join(word for kind, word in names.items() if kind in pieces)
