"""A kit of a bundle with draft heads: two engines are built on the device, and both are in what the kit says."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgekit.build.profile import Limits
from edgekit.bundle import Bundle
from edgekit.cli.plan import command as plan_verb
from edgekit.device.profile import device_profile
from edgekit.errors import DoesNotFit
from edgekit.kit.make import make_kit, software_for
from edgekit.kit.plan import checked_plan
from tests.kit.conftest import DEVICE, request


def verb(model: Path, *more: str) -> dict[str, Any]:
    """What `edgekit plan` says in the kit's sizes."""
    sizes = ["--context", "128", "--max-input-len", "32"]
    done = CliRunner().invoke(plan_verb, [str(model), "--device", DEVICE, *sizes, "--json", *more])
    assert done.exception is None, done.exception
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def weights(plan: dict[str, Any]) -> float:
    value: float = plan["memory"]["items"]["weights"]["value"]
    return value


def head_bytes(bundle: Bundle) -> int:
    assert bundle.manifest.draft is not None
    return sum(bundle.file(name).stat().st_size for name in (bundle.manifest.draft.file, *bundle.manifest.draft.data))


def planned(bundle: Bundle, limits: Limits, **device: Any) -> dict[str, Any]:
    profile = device_profile(DEVICE)
    found = checked_plan(bundle, replace(profile, **device), software_for(bundle, profile), limits)
    facts: dict[str, Any] = json.loads(json.dumps(found))
    return facts


def test_both_engines_are_in_the_kit_s_document(drafting: Bundle, tmp_path: Path) -> None:
    about = make_kit(drafting, request(max_batch_size=2), tmp_path / "kit").manifest
    assert [profile["name"] for profile in about.profiles] == ["prefill", "decode", "draft"]
    assert about.profiles[2]["axes"] == {
        "batch_size": {"smallest": 1, "usual": 1, "largest": 2},
        "new_positions": {"smallest": 1, "usual": 2, "largest": 32},
    }
    assert about.plan is not None
    assert weights(about.plan) - weights(verb(drafting.path / "config.json")) == head_bytes(drafting) > 0


def test_the_plan_is_that_of_the_bundle(drafting: Bundle) -> None:
    own, told = planned(drafting, Limits(1, 32, 128, 3)), verb(drafting.path)
    assert own["options"] == told["options"]
    assert weights(own) == weights(told)
    assert own["build"] == told["build"]
    assert own["drafting"]["proposed"] == told["drafting"]["proposed"] == 3


@pytest.mark.parametrize(
    ("batch", "longest", "proposed"),
    [(1, 2, 2), (1, 8, 3), (1, 0, None), (2, 3, None)],
    ids=["shorter drafts", "longer than the heads'", "none", "for several sequences nothing is told"],
)
def test_the_heads_are_loaded_however_much_is_drafted(
    batch: int, longest: int, proposed: int | None, drafting: Bundle
) -> None:
    own = planned(drafting, Limits(batch, 32, 128, longest))
    told = None if own["drafting"] is None else own["drafting"]["proposed"]
    assert told == proposed
    assert weights(own) - weights(verb(drafting.path / "config.json")) == head_bytes(drafting)


def test_heads_that_make_it_too_large_are_refused(drafting: Bundle, bundles: dict[str, Bundle]) -> None:
    limits, alone = Limits(1, 32, 128, 3), bundles["llama-jetpack6"]
    # The same model, on a device that has just enough for it alone.
    enough = math.ceil(planned(alone, limits)["memory"]["total"]["value"])
    room = {"memory_bytes": enough, "memory_reserved_bytes": None}
    assert planned(alone, limits, **room)["verdict"]["run"] == "tight"
    with pytest.raises(DoesNotFit) as caught:
        planned(drafting, limits, **room)
    # The bundle, not its configuration, which knows of no heads.
    assert f"edgekit plan {drafting.path} --device {DEVICE} " in caught.value.next_step
