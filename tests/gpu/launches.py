"""Launch a selection of the operators' cases on the GPU and compare nothing: what compute-sanitizer watches.

usage: compute-sanitizer --tool memcheck python -m tests.gpu.launches [--dtypes float32,float16] [--only NAME,...]

Tensors are allocated as large as they are, without guards behind them, and what the kernels write is not written
before, so that an access beyond a tensor, or of memory that nothing has written, is one that the tool sees. Needs no
torch.
"""

from __future__ import annotations

import argparse
import sys

from edgekit.ops.registry import operator
from tests import gpu_tools
from tests.plugins import device_kernels

#: One of each kind of launch: see the names; both kernels of attention, merge, all ways to copy rows.
CHOSEN = {
    "TPAAttention": (
        "one-token-47-heads",
        "decode-131-published-shape",
        "decode-257-two-blocks-masked",
        "verify-131-ragged",
        "prefill-70-ragged-poisoned",
        "prefill-70-after-61",
        "in-place-verify-ragged",
        "variant-000-decode-131",
        "variant-000-prefill-70",
        "frequencies-dropped",
    ),
    "TPAAppend": ("verify-131-width-one", "in-place-decode-65-of-131", "prefill-70"),
    "TTSparseLinear": (
        *("decode-67-to-131", "prefill-19", "residual-alone-with-bias", "groups-2-of-4", "bitmap-decode"),
        *("base-67-to-131", "base-576-to-200", "base-prefill-9", "base-of-2-beside-1"),
        *("base-prefill-9-in-eights", "base-prefill-41-in-eights"),
    ),
}


def launch(dtypes: list[str], only: list[str]) -> int:
    """Run them; gives how many calls there were."""
    count = 0
    for name, chosen in CHOSEN.items():
        spec = operator(name)
        for case in spec.cases():
            if case.name in chosen and (not only or case.name in only):
                for dtype in dtypes:
                    for splits in (0, 3) if spec.stem == "tpa_attention" else (0,):
                        inputs = case.inputs(dtype)
                        device_kernels.run(
                            spec.stem, case.attributes, inputs, in_place=case.in_place, splits=splits, guard=0
                        )
                        count += 1
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtypes", default="float32,float16,bfloat16")
    parser.add_argument("--only", default="", help="names of cases")
    arguments = parser.parse_args()
    if (reason := gpu_tools.no_kernels()) is not None:
        print(f"nothing was launched: {reason}", file=sys.stderr)
        return 1
    names = [name for name in arguments.only.split(",") if name]
    print(f"{launch(arguments.dtypes.split(','), names)} calls")
    return 0


if __name__ == "__main__":
    sys.exit(main())
