"""Measurements beside a bundle belong to the manifest they were taken with."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from edgekit.bundle import Measurement, check_files, find_measurement, read_bundle, read_sidecar, write_sidecar
from edgekit.bundle.sidecar import keep_measurement
from edgekit.errors import BundleError

Writer = Callable[..., Path]


def test_measurement_comes_back_and_leaves_the_bundle_whole(paper_bundle: Writer) -> None:
    bundle = read_bundle(paper_bundle())
    assert read_sidecar(bundle, "parity") is None
    write_sidecar(bundle, "parity", {"passed": True, "worst": 1e-4})
    assert read_sidecar(read_bundle(bundle.path), "parity") == {"passed": True, "worst": 1e-4}
    assert all(check.ok for check in check_files(bundle, full=True))


def test_later_measurement_replaces_the_earlier(paper_bundle: Writer) -> None:
    bundle = read_bundle(paper_bundle())
    write_sidecar(bundle, "bench", {"run": 1})
    write_sidecar(bundle, "bench", {"run": 2})
    assert read_sidecar(bundle, "bench") == {"run": 2}
    assert not list(bundle.path.glob(".*"))


def test_measurement_of_another_manifest_is_ignored(paper_bundle: Writer) -> None:
    bundle = read_bundle(paper_bundle())
    write_sidecar(bundle, "parity", {"passed": True})
    manifest = bundle.path / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "dtype": "int8"}))
    assert read_sidecar(read_bundle(bundle.path), "parity") is None


def test_measurement_of_another_manifest_is_told_from_none(paper_bundle: Writer) -> None:
    bundle = read_bundle(paper_bundle())
    assert find_measurement(bundle, "parity") is None
    write_sidecar(bundle, "parity", {"passed": True})
    found = find_measurement(bundle, "parity")
    assert found is not None
    assert (found.document, found.current, found.manifest_sha256) == ({"passed": True}, True, bundle.manifest_sha256)
    assert found.measured_at is not None
    age = datetime.now(timezone.utc) - datetime.fromisoformat(found.measured_at)
    assert timedelta(seconds=-1) <= age < timedelta(minutes=1)
    manifest = bundle.path / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "dtype": "int8"}))
    stale = find_measurement(read_bundle(bundle.path), "parity")
    assert stale is not None
    assert (stale.document, stale.current, stale.manifest_sha256) == ({"passed": True}, False, bundle.manifest_sha256)


@pytest.mark.parametrize("time", ["2001-02-03T04:05:06+00:00", None])
def test_measurement_moves_to_another_manifest_with_its_time(time: str | None, paper_bundle: Writer) -> None:
    bundle = read_bundle(paper_bundle())
    keep_measurement(bundle, "parity", Measurement({"passed": True}, True, "0" * 64, time))
    found = find_measurement(bundle, "parity")
    assert found == Measurement({"passed": True}, True, bundle.manifest_sha256, time)


@pytest.mark.parametrize("content", ["[]", "{}", '{"manifest_sha256": 1}'])
def test_measurement_without_its_key_is_ignored(paper_bundle: Writer, content: str) -> None:
    bundle = read_bundle(paper_bundle())
    (bundle.path / "parity.json").write_text(content)
    assert read_sidecar(bundle, "parity") is None


def test_damaged_measurement_is_named(paper_bundle: Writer) -> None:
    bundle = read_bundle(paper_bundle())
    (bundle.path / "eval.json").write_text('{"perplexity": 12')
    with pytest.raises(BundleError, match="eval.json") as caught:
        read_sidecar(bundle, "eval")
    assert "edgekit eval" in caught.value.next_step


def test_unknown_measurement_and_nan_are_defects(paper_bundle: Writer) -> None:
    bundle = read_bundle(paper_bundle())
    with pytest.raises(ValueError, match="there are parity, eval, bench"):
        write_sidecar(bundle, "../parity", {})
    with pytest.raises(ValueError, match="NaN|Out of range"):
        write_sidecar(bundle, "parity", {"worst": float("nan")})
    assert read_sidecar(bundle, "parity") is None
