"""python -m edgekit.kit KIT: runs a kit on its device. The standard library's argument parser, so that no other
package is needed there."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from edgekit.errors import EdgekitError, of_os_error
from edgekit.words import counted


def main(arguments: list[str] | None = None) -> int:
    """The exit code: see edgekit.errors."""
    parser = argparse.ArgumentParser(
        "edgekit.kit", description="Build, prove and measure a kit's engine on its device."
    )
    parser.add_argument("kit", type=Path, help="the directory with kit.json")
    parser.add_argument("--verify", action="store_true", help="check every file against kit.json and stop")
    parser.add_argument("--repetitions", type=_repetitions, default=10, help="of the benchmark (default: 10)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    chosen = parser.parse_args(arguments)
    try:
        return _run(chosen)
    except EdgekitError as error:
        return _told(error)
    except OSError as error:
        found = of_os_error(error)
        if found is None:
            raise
        return _told(found)
    except KeyboardInterrupt:
        return 130


def _told(error: EdgekitError) -> int:
    for line in (error.rule, error.fact, error.next_step):
        if line:
            print(line, file=sys.stderr)
    return error.exit_code


def _repetitions(text: str) -> int:
    """Of the benchmark: at least 1, for argparse."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _run(chosen: argparse.Namespace) -> int:
    from edgekit.kit.document import RESULTS, verify_kit

    say("checking the kit's files …")
    kit = verify_kit(chosen.kit)
    if chosen.verify:
        say(f"{counted(len(kit.manifest.files), 'files')} are as they were made")
        return 0

    from edgekit.kit.run import RESULT, RunOptions, run_kit

    result = run_kit(kit, RunOptions(repetitions=chosen.repetitions), say)
    if chosen.json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        for line in summary(result):
            print(line)
    say(f"{kit.path / RESULTS / RESULT}: copy it back for edgekit report")
    return 0


def summary(result: dict[str, Any]) -> list[str]:
    """The measured medians, a line each."""
    from edgekit.benchmark.energy import energy_lines

    benchmark, parity = result["benchmark"], result["parity"]
    worst = {mode: stage["cosine"] for mode, stage in parity["stages"].items()}
    lines = [f"parity     passed, smallest cosine {min(worst.values()):.6f}, same first choice {parity['top1']:.1%}"]
    for prompt in benchmark["prompts"]:
        rate = prompt["tokens_per_s"]["median"]
        lines.append(
            f"prompt     {prompt['tokens']} tokens: {prompt['ttft_s']['median'] * 1e3:.1f} ms, {rate:.0f} tokens/s"
        )
    for decode in benchmark["decodes"]:
        rate = decode["tokens_per_s"]["median"]
        lines.append(f"decode     after {decode['depth']} tokens: {rate:.1f} tokens/s")
    return lines + energy_lines(benchmark)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
