"""The plan that a kit carries: that what it will build is expected to run on its device."""

from __future__ import annotations

from typing import Any

from edgekit.build.profile import Limits
from edgekit.bundle import Bundle
from edgekit.checkpoint.json_file import read_json_object
from edgekit.device.profile import DeviceProfile, Software
from edgekit.plan.facts import plan_facts
from edgekit.plan.machine import released
from edgekit.plan.model_sizes import model_sizes
from edgekit.plan.of_bundle import options_of_bundle
from edgekit.plan.plan import make_plan
from edgekit.plan.refusal import does_not_fit


def checked_plan(bundle: Bundle, device: DeviceProfile, software: Software, limits: Limits) -> dict[str, Any]:
    """What `edgekit plan --json` tells of the bundle in the kit's sizes, with the TensorRT of its release.

    Raises:
        DoesNotFit: the engine is not expected to run on the device.
        ModelError: the model's sizes cannot be told.
    """
    sizes = model_sizes(read_json_object(bundle.file("config.json")))
    options = options_of_bundle(
        bundle,
        sizes,
        draft_tokens=limits.max_draft_len,
        dtype=bundle.manifest.dtype,
        context=limits.max_kv_cache_capacity,
        batch=limits.max_batch_size,
        max_input=limits.max_input_len,
    )
    plan = make_plan(bundle.manifest.model.name, sizes, released(device, software), options)
    if not plan.fits:
        raise does_not_fit(
            plan,
            f"lower --max-kv-cache-capacity or --max-batch-size: edgekit plan {bundle.path} --device {device.name} "
            f"--dtype {options.dtype} tells what fits",
        )
    return plan_facts(plan)
