"""How small and how large a method can make a checkpoint's matrices, by their shapes alone: told before any work."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch

from edgekit.compress.layerwise.allocate import LEAST, QUANTISING, least_bytes
from edgekit.compress.layerwise.options import CompressOptions, Sizes, budget_of
from edgekit.compress.layerwise.plan import Plan, settings_from
from edgekit.compress.saten.correction import FACTORS, VALUES
from edgekit.compress.saten.cost import planned_seconds
from edgekit.compress.saten.factors import pair_bytes
from edgekit.compress.saten.methods import saten_faithful, tt
from edgekit.compress.saten.methods.saten_augmented import possible_bases
from edgekit.compress.saten.request import Request, Settings
from edgekit.compress.saten.sparse import Nothing, Sparsity
from edgekit.compress.saten.sparse_format import sparse_bytes
from edgekit.compress.saten.storage import FLOAT
from edgekit.compress.saten.whitening import Metric
from edgekit.errors import ExportError
from edgekit.words import counted

Shape = tuple[int, int]

#: Bytes of a weight in float16: who has these needs no compression.
_PLAIN = 2


def _pair(shape: Shape, settings: Settings) -> int:
    return pair_bytes(shape, 1, settings.factors or FLOAT, settings.block)


def _pair_and_sparse(shape: Shape, settings: Settings) -> int:
    return pair_bytes(shape, 1, settings.factors or FACTORS, settings.block) + _sparse(
        shape, settings.sparsity or Nothing(), settings.values or VALUES, settings
    )


def _train(shape: Shape, settings: Settings) -> int:
    return _train_of(shape, settings, settings.order or tt.ORDER)


def _train_and_sparse(shape: Shape, settings: Settings) -> int:
    part = _sparse(shape, settings.sparsity or saten_faithful.SPARSITY, settings.values or FLOAT, settings)
    return part + _train_of(shape, settings, settings.order or tt.ORDER)


def _sparse(shape: Shape, sparsity: Sparsity, values: str, settings: Settings) -> int:
    return sparse_bytes(shape, sparsity, values, settings.block)


def _train_of(shape: Shape, settings: Settings, order: int) -> int:
    weight = torch.empty(shape, device="meta")
    request = Request(weight, Metric(torch.empty(0), torch.empty(0)), 0, settings)
    return tt.least_train_bytes(request, order, settings.factors or FLOAT)


#: Methods without codes; of the others `least_bytes` knows.
_LEAST: dict[str, Callable[[Shape, Settings], int]] = {
    "saten": _pair_and_sparse,
    "saten-faithful": _train_and_sparse,
    "svd": _pair,
    "svd-aware": _pair,
    "tt": _train,
}


def least_of(method: str, shape: Shape, settings: Settings) -> int:
    """Bytes that a matrix takes at least. ExportError: its shape does not suit the sparsity."""
    return least_bytes(method, shape, settings) if method in QUANTISING else _LEAST[method](shape, settings)


def most_of(method: str, shape: Shape, settings: Settings) -> int:
    """Bytes that it can take at most: its largest codes where there is nothing else, and never more than float16."""
    plain = _PLAIN * shape[0] * shape[1]
    if method in QUANTISING and method != "saten-augmented":
        return min(plain, max(size for size, _, _ in possible_bases(shape, settings)))
    return plain


def check_budget(options: CompressOptions, sizes: Sizes) -> None:
    """ExportError: the size that is asked for is less than the method needs, or more than it can use."""
    settings = settings_from(options.settings)
    if options.target_ms is not None:
        check_time(options.target_ms, sizes, settings)
        return
    budget, shapes = budget_of(options, sizes), sizes.matrices.values()
    least = _least_together(options, shapes, settings)
    most = sum(most_of(options.method, shape, settings) for shape in shapes)
    if least <= budget <= most:
        return
    weights = sizes.compressed_weights
    low, high = (8 * nbytes / weights for nbytes in (least, most))
    also = ", other --base-bits" if options.base_bits else ", another --sparsity" if options.sparsity else ""
    raise ExportError(
        f"{options.method} of {counted(len(sizes.matrices), 'matrices')} like these makes {low:.3g} to {high:.3g} bits "
        f"per weight ({least:,} to {most:,} bytes)",
        f"{8 * budget / weights:.3g} bits per weight ({budget:,} bytes) were asked for",
        f"ask for {_range(options, sizes, least, most)}{also}, or choose another --method",
    )


def check_time(milliseconds: float, sizes: Sizes, settings: Settings) -> None:
    """ExportError: the fastest bases take longer."""
    least = sum(
        min(planned_seconds(shape, bits, block, 0) for _, bits, block in possible_bases(shape, settings))
        for shape in sizes.matrices.values()
    )
    if 1e3 * least > milliseconds:
        raise ExportError(
            f"one token's products with these {counted(len(sizes.matrices), 'matrices')} take at least "
            f"{1e3 * least:.2f} ms on one thread, by the cost model of the processor that was measured",
            f"{milliseconds:g} ms were asked for",
            "allow more with --target-ms",
        )


def check_plan(plan: Plan, sizes: Sizes) -> None:
    """ExportError: a matrix is given less than its method needs."""
    for entry in plan.entries:
        least = least_of(entry.method, sizes.matrices[entry.matrix], plan.settings_of(entry))
        if entry.nbytes < least:
            raise ExportError(
                f"{entry.method} of {entry.matrix} takes {least:,} bytes at least",
                f"the plan gives it {entry.nbytes:,}",
                'give it more "bytes" in the plan, or another "method"',
            )


def _least_together(options: CompressOptions, shapes: Iterable[Shape], settings: Settings) -> int:
    """Of all matrices. Where each gets its share of the whole, the one that needs most for its size decides."""
    found = {shape: least_of(options.method, shape, settings) for shape in set(shapes)}
    if options.allocate and options.method in QUANTISING:
        return sum(found[shape] for shape in shapes)
    share = LEAST if options.allocate else 1.0
    most_needed = max(nbytes / (rows * columns) for (rows, columns), nbytes in found.items())
    return math.ceil(most_needed / share * sum(rows * columns for rows, columns in shapes))


def _range(options: CompressOptions, sizes: Sizes, least: int, most: int) -> str:
    """What would do, by the option that was given; rounded inwards."""
    if options.target_bytes is not None:
        return f"--target-bytes {sizes.kept_bytes + least} to {sizes.kept_bytes + most}"
    name, unit, kept = "--bits-per-weight", sizes.compressed_weights / 8, 0
    if options.ratio is not None:
        name, unit, kept = "--ratio", 2.0 * sizes.weights, sizes.kept_bytes
    low, high = math.ceil(1e4 * (kept + least) / unit) / 1e4, math.floor(1e4 * (kept + most) / unit) / 1e4
    return f"{name} {low:g} to {high:g}"
