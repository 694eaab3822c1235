"""Each bound can be broken, the first broken one is named, and the verdict is kept as valid JSON."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from edgekit.errors import ParityFailed
from edgekit.parity.compare import Difference
from edgekit.parity.encoder_report import EncoderReport, Likeness
from edgekit.parity.report import Agreement, ParityReport, Report, Stage, WeightCheck
from edgekit.parity.tolerance import GRAPH, MODEL, WEIGHTS, Tolerance

TOLERANCE = Tolerance(cosine=0.99, relative_error=0.1, max_abs_error=1.0)
GOOD = Difference(0.995, 0.5, 0.05)


def test_within_all_bounds() -> None:
    assert TOLERANCE.objection(GOOD) is None
    assert TOLERANCE.objection(Difference(0.99, 1.0, 0.1)) is None


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (replace(GOOD, cosine=0.98), "cosine 0.980000000 is below 0.99"),
        (replace(GOOD, cosine=math.nan), "cosine nan"),
        (replace(GOOD, max_abs_error=1.01), "the largest error 1.01 is above 1"),
        (replace(GOOD, max_abs_error=math.nan), "the largest error nan"),
        (replace(GOOD, relative_error=0.11), "the relative error 0.11 is above 0.1"),
        (replace(GOOD, relative_error=math.inf), "the relative error inf"),
    ],
)
def test_every_bound_can_be_broken(bad: Difference, words: str) -> None:
    assert words in str(TOLERANCE.objection(bad))


def test_tolerances_are_found_by_the_stage() -> None:
    graph = GRAPH["float32"]
    assert graph.of("hidden.12") is graph.hidden
    assert graph.of("cache.3.key") is graph.cache
    assert graph.of("logits") is graph.logits
    assert graph.logits.max_abs_error == 1e-3


def report(**changes: object) -> ParityReport:
    agreement = Agreement(10, 0.001, 0.01, 0.99, 8, (8, 5), MODEL["int4"])
    weight = WeightCheck("a.weight", 4, 0.1, 0.2, WEIGHTS[4])
    stages = (Stage("prefill", "hidden.0", GOOD, TOLERANCE), Stage("prefill", "logits", GOOD, TOLERANCE))
    fields = {
        "checkpoint": "model.gguf",
        "form": "ort",
        "dtype": "int4",
        "activations": "int8",
        "reference": "dequantized",
        "prompts": 2,
        "weights": (weight,),
        "stages": stages,
        "model": agreement,
    }
    return ParityReport(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_report_passes_when_every_gate_does() -> None:
    assert report().failure is None
    assert report().passed
    report().require()


BAD_WEIGHTS = (WeightCheck("a.weight", 4, 0.1, 0.2, WEIGHTS[4]), WeightCheck("b.weight", 4, 0.1, 0.9, WEIGHTS[4]))
BAD_STAGES = (
    Stage("prefill", "hidden.0", GOOD, TOLERANCE),
    Stage("prefill", "cache.0.key", replace(GOOD, cosine=0.5), TOLERANCE),
    Stage("prefill", "hidden.1", replace(GOOD, cosine=0.1), TOLERANCE),
)
BAD_MODEL = Agreement(10, 2.0, 5.0, 0.99, 8, (0, 0), MODEL["int4"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"weights": BAD_WEIGHTS, "stages": BAD_STAGES, "model": BAD_MODEL},
            "weight b.weight: the relative error of a row",
        ),
        ({"stages": BAD_STAGES, "model": BAD_MODEL}, "prefill, cache.0.key: cosine"),
        ({"model": BAD_MODEL}, "choices: the mean KL divergence 2 is above"),
        ({"model": replace(BAD_MODEL, kl_mean=0.0, top1=0.1)}, "choices: 10.0% of the first choices agree"),
        ({"model": replace(BAD_MODEL, kl_mean=math.nan)}, "choices: the mean KL divergence nan"),
    ],
)
def test_the_first_failure_in_the_order_of_data_is_named(changes: dict[str, object], words: str) -> None:
    failed = report(**changes)
    assert not failed.passed
    assert words in str(failed.failure)
    with pytest.raises(ParityFailed) as raised:
        failed.require()
    assert raised.value.exit_code == 3
    assert words in raised.value.fact


def test_json_holds_every_stage_and_no_number_that_json_has_not() -> None:
    bad = Stage("decode", "logits", Difference(math.nan, math.inf, math.nan), TOLERANCE)
    document = json.loads(json.dumps(report(stages=(bad,)).to_dict(), allow_nan=False))
    assert document["passed"] is False
    assert document["failure"].startswith("decode, logits: cosine nan")
    (stage,) = document["stages"]
    assert (stage["cosine"], stage["max_abs_error"], stage["passed"]) == (None, None, False)
    assert stage["tolerance"]["cosine"] == 0.99
    assert document["weights"][0]["passed"] is True
    assert document["model"]["greedy_prefixes"] == [8, 5]


def test_a_matrix_can_fail_as_a_whole() -> None:
    assert "of the matrix is 0.6" in str(WeightCheck("w", 4, 0.6, 0.7, WEIGHTS[4]).objection)
    assert WeightCheck("w", 8, math.nan, 0.0, WEIGHTS[8]).objection is not None


GOOD_LIKENESS = Likeness(texts=9, cosine_mean=0.999, cosine_min=0.99, max_abs_error=0.01, least_cosine=0.98)


def encoder_report(**changes: object) -> EncoderReport:
    found = report()
    common = {name: getattr(found, name) for name in Report.__dataclass_fields__}
    fields = {**common, "texts": 9, "cut": 1, "embeddings": GOOD_LIKENESS}
    return EncoderReport(**{**fields, **changes})


def test_an_encoder_is_judged_by_its_embeddings_after_what_they_come_from() -> None:
    assert encoder_report().passed
    far = replace(GOOD_LIKENESS, cosine_min=0.5)
    failed = encoder_report(embeddings=far)
    assert failed.failure == "embeddings: the smallest cosine to the original embedding, 0.500000, is below 0.98"
    assert "cache.0.key" in str(encoder_report(stages=BAD_STAGES, embeddings=far).failure)
    with pytest.raises(ParityFailed, match="is below 0.98"):
        failed.require()
    document = json.loads(json.dumps(failed.to_dict(), allow_nan=False))
    assert (document["kind"], document["texts"], document["cut"]) == ("encoder", 9, 1)
    assert document["embeddings"]["passed"] is False


@pytest.mark.parametrize(
    ("reference", "words"), [("original", "the checkpoint's weights"), ("dequantized", "the weights it stores")]
)
def test_whose_weights_were_compared_with_is_told(reference: str, words: str) -> None:
    for found in (
        report(reference=reference, model=BAD_MODEL),
        encoder_report(reference=reference, embeddings=replace(GOOD_LIKENESS, cosine_min=0.0)),
    ):
        with pytest.raises(ParityFailed) as raised:
            found.require()
        assert words in raised.value.rule
