"""The report on whether answers are right: parity and perplexity."""

from __future__ import annotations

import re

from edgekit.bundle import Bundle, write_sidecar
from tests.report import documents
from tests.report.reading import facts, report, section, table, text, tiles


def test_parity_shows_each_stage_at_its_worst(measured: Bundle) -> None:
    part = section(report(measured), "parity")
    assert "Every stage is within the tolerance" in text(part)
    rows = table(part, "Each way to run the graph, at its worst")
    assert list(rows) == ["prefill", "chunked", "decode"]
    cosines = [f"{1 - error / 10:.7f}" for error in (2 * 3 * 1.7e-7, 2 * 3 * 3.1e-7, 3 * 4.3e-7)]
    assert rows["decode"] == [*cosines, "3.87e−6", "1.29e−6", "ok"]
    layers = table(part, "Every layer")
    assert list(layers) == ["embedding", "0", "1"]
    # Of layer 1 the hidden state is what comes out of it: hidden.2, at its worst in the third mode.
    assert layers["1"][1] == "1.02e−6"
    assert layers["1"][4] == "1.38e−6"
    assert layers["1"][7] == "1.86e−6"
    choices = table(part, "Over 1,234 positions")
    assert choices["mean KL divergence"] == ["0.00457 nats", "at most 0.03 nats"]
    assert choices["same most likely token"] == ["97.65 %", "at least 90 %"]
    assert choices["greedy tokens in common"][0] == "64, 7, 31"
    assert "tolerance 0.0001" in text(part)


def test_failed_parity_is_red_and_names_the_stage(bare: Bundle) -> None:
    stages = [*documents.parity()["stages"], documents.stage("runtime", "logits", 0.5, passed=False)]
    write_sidecar(bare, "parity", documents.parity(passed=False, failure="runtime, logits: 0.5", stages=stages))
    root = report(bare)
    part = section(root, "parity")
    assert part.get("class") == "failed"
    assert "Failed: runtime, logits: 0.5" in text(part)
    assert table(part, "Each way to run the graph, at its worst")["runtime"][-1] == "FAILEDlogits"
    assert tiles(root)["Parity"].startswith("failed")


def test_what_is_not_finite_is_said_and_not_drawn(bare: Bundle) -> None:
    document = documents.parity(passed=False, failure="prefill, hidden.1")
    for stage in document["stages"]:
        if stage["name"] == "hidden.1":
            stage.update(cosine=None, max_abs_error=None, relative_error=None, passed=False)
    write_sidecar(bare, "parity", document)
    layers = table(section(report(bare), "parity"), "Every layer")
    assert layers["0"][0] == "not finite"
    assert not re.search(r"\bnan\b", text(report(bare)).lower())


def test_perplexity_with_its_comparison(measured: Bundle) -> None:
    part = section(report(measured), "perplexity")
    found = facts(part)
    assert found["perplexity"] == "17.65 ± 0.432"
    assert found["bits per byte"] == "0.98765"
    assert found["nats per token"] == f"{6700.5 / 2334:.5f}"
    assert found["windows"] == "5 of 512 tokens, stride 512"
    assert "tiny, PyTorch float32" in text(part)
    assert "+1.92 ± 0.22 %" in text(part)
    numbers = table(part, "Numbers: Perplexity")
    assert numbers["this bundle"] == ["17.65", "17.22 to 18.09"]


def test_perplexity_alone(bare: Bundle) -> None:
    write_sidecar(bare, "eval", documents.perplexity(reference=None, standard_error=None))
    part = section(report(bare), "perplexity")
    assert "nothing to compare it with" in text(part)
    assert facts(part)["perplexity"] == "17.65"
