"""The same jobs in processes and on a local Dask cluster of which a worker is killed: the same bytes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from distributed import Client, LocalCluster

from edgekit.checkpoint import open_checkpoint
from edgekit.cli.main import cli
from edgekit.compress.layerwise import execute
from edgekit.compress.layerwise.compress import compress
from edgekit.compress.layerwise.execute import Executor, in_processes, on_cluster
from edgekit.errors import ExportError
from edgekit.progress import SilentProgress
from tests.compress.layerwise.small import here, options
from tests.parity.tiny_models import write_checkpoint


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as made:
        yield made


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("execute") / "llama", "llama", num_hidden_layers=6)


def weights(source: Path, out: Path, executor: Executor) -> bytes:
    given: dict[str, Any] = {"progress": SilentProgress(), "execute": executor}
    assert compress(open_checkpoint(source), out, options(method="dense"), **given) is not None
    return (out / "model.safetensors").read_bytes()


def test_a_killed_worker_changes_nothing(cluster: LocalCluster, deep: Path, tmp_path: Path) -> None:
    with Client(cluster) as client:
        workers = client.run(os.getpid)
    killed: list[int] = []

    def killing(
        function: Callable[[Any], Any], jobs: Sequence[Any], done: Callable[[Any], None], stopped: Callable[[], bool]
    ) -> bool:
        def after(result: Any) -> None:
            done(result)
            if not killed:
                killed.append(next(iter(workers.values())))
                os.kill(killed[0], signal.SIGKILL)

        return on_cluster(cluster.scheduler_address)(function, jobs, after, stopped)

    found = weights(deep, tmp_path / "cluster", killing)
    assert len(killed) == 1
    assert found == weights(deep, tmp_path / "processes", in_processes(2))
    assert found == weights(deep, tmp_path / "here", here)


def test_the_verb_takes_a_scheduler(cluster: LocalCluster, deep: Path, tmp_path: Path) -> None:
    small = ["--bits-per-weight", "5", "--calibration-sequences", "4", "--calibration-length", "32", "--rounds", "1"]
    arguments = ["compress", str(deep), "-o", str(tmp_path / "out"), *small, "--method", "round", "--uniform"]
    result = CliRunner().invoke(cli, [*arguments, "--scheduler", cluster.scheduler_address])
    assert result.exit_code == 0, result.output


def test_a_scheduler_that_does_not_answer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "CONNECT_S", 1)
    with pytest.raises(ExportError, match=r"tcp://127\.0\.0\.1:1"):
        on_cluster("tcp://127.0.0.1:1")


def test_an_error_of_a_job_is_its_own(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        in_processes(1)(os.listdir, [tmp_path / "nothing"], lambda result: None, lambda: False)
