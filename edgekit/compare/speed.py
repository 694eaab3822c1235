"""Speed, measured in rounds over all bundles: A B C, A B C, so that a drift of the machine meets all alike.

Every run is a process of its own, with one bundle in memory, which checks its answers before it is timed.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from edgekit.benchmark.environment import environment
from edgekit.benchmark.process import run_worker
from edgekit.benchmark.worker import Request
from edgekit.compare.quality import AGAIN, KEPT
from edgekit.compare.subject import Engine, Subject, why
from edgekit.errors import EdgekitError
from edgekit.evaluate.progress_file import RowFile
from edgekit.progress import Progress, SilentProgress

#: Timed repetitions of each run, after one that does not count.
REPETITIONS = 2


@dataclass(frozen=True)
class Pace:
    """How speed is measured; `depth`, `decode_tokens`: of decoders.

    Attributes:
        depth: tokens in the cache when decoding begins.
    """

    rounds: int
    depth: int = 0
    decode_tokens: int = 0


@dataclass
class SpeedRun:
    """Measures bundles of one kind.

    Attributes:
        encoders: whether they make embeddings.
        failures: why a bundle was not measured, by label.
    """

    subjects: tuple[Subject, ...]
    encoders: bool
    pace: Pace
    engine: Engine
    cache: bool
    progress: Progress
    failures: dict[str, EdgekitError] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises EdgekitError where what was kept is damaged."""
        machine = environment()
        self.environment = machine
        hashes = {subject.label: self._hash(subject) for subject in self.subjects}
        key = {
            "speeds": sorted(hashes.values()),
            "engine": [self.engine.backend, self.engine.operators, self.engine.threads],
            "pace": [self.pace.depth, self.pace.decode_tokens, REPETITIONS],
            "machine": [machine["cpu"], machine["usable_cores"], machine["memory_bytes"], machine["system"]],
            "versions": {name: version for name, version in machine["versions"].items() if name != "python"},
        }
        self.file = RowFile(key, kind=KEPT, again=AGAIN)
        if self.cache:
            self.file.load()

    def pending(self) -> dict[str, int]:
        """Of each bundle how many runs are left."""
        done = {(row["round"], row["bundle"]) for row in self.file.rows}
        return {
            subject.label: sum((number, self._hash(subject)) not in done for number in range(self.pace.rounds))
            for subject in self.subjects
        }

    def run(self, skip: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        """Measure what is left, without those to `skip`; by label, without those that failed."""
        subjects = [subject for subject in self.subjects if subject.label not in skip]
        left = sum(count for label, count in self.pending().items() if label not in skip)
        wanted = self.pace.rounds * len(subjects)
        if left < wanted:
            when = self.file.rows[-1]["at"]
            self.progress.note(
                f"{wanted - left} of {wanted} runs were timed before, at {when} ({AGAIN} times them again)"
            )
        if left:
            self.progress.stage("timing", left, "runs")
        for number in range(self.pace.rounds):
            for subject in subjects:
                if subject.label not in self.failures and not self._done(number, subject):
                    self._attempt(number, subject)
                    self.progress.advance()
        return {subject.label: self._summary(subject) for subject in subjects if subject.label not in self.failures}

    def _attempt(self, number: int, subject: Subject) -> None:
        request = Request(
            "embed" if self.encoders else "measure",
            str(subject.path),
            self.engine.backend,
            self.engine.threads,
            depths=() if self.encoders else (self.pace.depth,),
            decode_tokens=self.pace.decode_tokens,
            repetitions=REPETITIONS,
            operators=self.engine.operators,
        )
        try:
            found = run_worker(request, SilentProgress())
        except EdgekitError as error:
            self.failures[subject.label] = error
            self.progress.note(f"{subject.label} was not timed: {why(error)}")
            return
        rates = found["texts_per_s"] if self.encoders else found["decodes"][0]["tokens_per_s"]
        noise, memory = found["others_cpu_share"], found["memory_measured"]
        self.file.rows.append(
            {
                "round": number,
                "bundle": self._hash(subject),
                "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "per_s": rates["samples"],
                "others_cpu_share": None if noise is None else noise["mean"],
                "peak_memory_bytes": None if memory is None else memory["peak"],
                "session": found["session"],
            }
        )
        if self.cache:
            self.file.write()

    def _done(self, number: int, subject: Subject) -> bool:
        return any(row["round"] == number and row["bundle"] == self._hash(subject) for row in self.file.rows)

    def _hash(self, subject: Subject) -> str:
        assert subject.bundle is not None
        return subject.bundle.manifest_sha256

    def _summary(self, subject: Subject) -> dict[str, Any]:
        """Median over all samples, and what belongs to it; for JSON."""
        rows = [
            row for row in self.file.rows if row["bundle"] == self._hash(subject) and row["round"] < self.pace.rounds
        ]
        rows.sort(key=lambda row: row["round"])
        samples = [float(rate) for row in rows for rate in row["per_s"]]
        noise = [row["others_cpu_share"] for row in rows if row["others_cpu_share"] is not None]
        memory = [row["peak_memory_bytes"] for row in rows if row["peak_memory_bytes"] is not None]
        return {
            "median": statistics.median(samples),
            "min": min(samples),
            "max": max(samples),
            "samples": samples,
            "rounds": len(rows),
            "first_at": rows[0]["at"],
            "last_at": rows[-1]["at"],
            "others_cpu_share": statistics.fmean(noise) if noise else None,
            "peak_memory_bytes": max(memory) if memory else None,
            "session": rows[0]["session"],
        }
