"""Measurements as the verbs keep them, with numbers that tell each other apart. Real ones: tests/cli/test_report.py."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from typing import Any

from edgekit.bundle import Bundle, read_bundle

LAYERS = 2


def samples(values: Sequence[float]) -> dict[str, Any]:
    return {
        "median": statistics.median(values),
        "mean": statistics.fmean(values),
        "stdev": statistics.stdev(values) if len(values) > 1 else None,
        "min": min(values),
        "samples": list(values),
    }


def stage(mode: str, name: str, error: float, passed: bool = True) -> dict[str, Any]:
    tolerance = {"cosine": 0.999_999, "relative_error": 1e-4, "max_abs_error": None}
    return {
        "mode": mode,
        "name": name,
        "cosine": 1 - error / 10,
        "max_abs_error": error * 3,
        "relative_error": error,
        "tolerance": tolerance,
        "passed": passed,
    }


def parity(**changes: Any) -> dict[str, Any]:
    """Errors of layer i after mode m are (i + 1)(m + 1) · 1.7e-7: the last mode is the worst."""
    stages = []
    for m, mode in enumerate(("prefill", "chunked", "decode")):
        for layer in range(LAYERS):
            stages.append(stage(mode, f"hidden.{layer}", layer * (m + 1) * 1.7e-7))
            stages.append(stage(mode, f"cache.{layer}.key", (layer + 1) * (m + 1) * 2.3e-7))
            stages.append(stage(mode, f"cache.{layer}.value", (layer + 1) * (m + 1) * 3.1e-7))
        stages.append(stage(mode, f"hidden.{LAYERS}", LAYERS * (m + 1) * 1.7e-7))
        stages.append(stage(mode, "logits", (m + 1) * 4.3e-7))
    model = {
        "positions": 1234,
        "kl_mean": 0.004567,
        "kl_max": 0.0891,
        "top1": 0.97654,
        "greedy_tokens": 64,
        "greedy_prefixes": [64, 7, 31],
        "tolerance": {"kl_mean": 0.03, "top1": 0.9},
        "passed": True,
    }
    weights = [
        {"name": f"matrix.{i}", "bits": 8, "relative_error": 0.0041 + i * 1e-4, "worst_row": 0.006, "passed": True}
        for i in range(5)
    ]
    return {
        "passed": True,
        "failure": None,
        "checkpoint": "/models/tiny",
        "form": "ort",
        "dtype": "int8",
        "activations": "int8",
        "reference": "dequantized",
        "prompts": 3,
        "model": model,
        "stages": stages,
        "weights": weights,
        **changes,
    }


def perplexity(**changes: Any) -> dict[str, Any]:
    return {
        "text": {"name": "speech.txt", "sha256": "ab" * 32, "bytes": 12_345, "tokens": 2_345},
        "context": 512,
        "stride": 512,
        "bos": None,
        "perplexity": 17.654,
        "standard_error": 0.432,
        "bits_per_byte": 0.98765,
        "nats": 6_700.5,
        "tokens": 2_334,
        "windows": 5,
        "reference": {
            "name": "tiny, PyTorch float32",
            "perplexity": 17.321,
            "standard_error": 0.421,
            "bits_per_byte": 0.98,
            "nats": 6_650.0,
            "tokens": 2_334,
            "windows": 5,
            "ratio": 1.01923,
            "ratio_standard_error": 0.00217,
        },
        **changes,
    }


def bench(**changes: Any) -> dict[str, Any]:
    steps = [[0.0211, 0.0223, 0.0237], [0.0219, 0.0247, 0.0291]]
    means = [sum(each) / 3 for each in steps]
    decode = {
        "depth": 128,
        "tokens": 3,
        "s_per_token": samples(means),
        "tokens_per_s": samples([1 / mean for mean in means]),
        "steps_s": steps,
        "roofline": {"bytes_per_token": 164_700_000, "bound_s_per_token": 0.00407, "attained": 0.1743},
    }
    return {
        "bundle": "somewhere",
        "model": "tiny",
        "form": "ort",
        "dtype": "int8",
        "parity": True,
        "settings": {"repetitions": 2, "decode_tokens": 3, "threads": 2},
        "session": "onnxruntime 9.9.9, CPUExecutionProvider, 2 threads",
        "environment": {
            "commit": "c" * 40,
            "cpu": "Example CPU",
            "system": "Linux-6",
            "versions": {"edgekit": "0.1.0", "python": "3.11"},
        },
        "load": {"cold": None, "warm": {"load_s": samples([0.377, 0.391])}},
        "prompts": [
            {"tokens": 512, "ttft_s": samples([1.317, 1.415]), "tokens_per_s": samples([512 / 1.317, 512 / 1.415])}
        ],
        "decodes": [decode],
        "memory": {
            "loaded": {"peak": 289_300_000},
            "measured": {"peak": 402_200_000},
            "weight_file_bytes": 158_206_208,
        },
        "read_bandwidth_bytes_per_s": 40.7e9,
        "read_bandwidth_method": "libc memchr",
        "others_cpu_share": samples([0.01, 0.02]),
        **changes,
    }


def drafted() -> dict[str, Any]:
    """What `edgekit bench --draft` adds: blocks of up to 3 positions; a group with heads and copies, one with none."""
    heads = {"steps": {"2": 50}, "drafted": 100, "accepted": 67, "acceptance_by_position": [0.8, 0.675]}
    copies = {"steps": {"2": 5}, "drafted": 10, "accepted": 9, "acceptance_by_position": [1.0, 0.8]}
    speeds = samples([1.31, 1.47, 1.69])
    chat = {
        "group": "chat",
        "answers": 3,
        "identical": 2,
        "tokens": 300,
        "plain_tokens_per_s": samples([41.0, 42.0, 43.0]),
        "drafted_tokens_per_s": samples([55.0, 61.5, 70.0]),
        "speed_up": {**speeds, "quartiles": [1.39, 1.47, 1.58]},
        "draft": {"tokens_per_step": 2.143, "sources": {"cp": heads, "ngram": copies}, "off": None},
    }
    nothing = {
        **chat,
        "group": "riddles",
        "answers": 1,
        "identical": 1,
        "speed_up": {**samples([0.99]), "quartiles": [0.99, 0.99, 0.99]},
        "draft": {"tokens_per_step": 1.0, "sources": {}, "off": "it promises 0.83 times the speed"},
    }
    return {
        "answer_tokens": 100,
        "groups": [chat, nothing],
        "answers": [],
        "blocks": [
            {"positions": k, "depth": 256, "step_s": samples([0.01 * r, 0.0101 * r, 0.0099 * r]), "ratio": r}
            for k, r in ((1, 1.0), (2, 1.17), (3, 1.21))
        ],
    }


def kit_result(**changes: Any) -> dict[str, Any]:
    """As `python -m edgekit.kit` writes it on a device (`edgekit.kit.run`)."""
    timed = {name: value for name, value in bench().items() if name in ("prompts", "decodes", "others_cpu_share")}
    return {
        "kit": {"device": "jetson-orin-nano-8gb", "model": "tiny", "dtype": "fp32", "form": "ort", "tensorrt": "10.3"},
        "passed": True,
        "failure": None,
        "machine": {"platform": "Linux-5.15-tegra", "tensorrt": "10.3", "gpu": {"name": "Orin"}},
        "build": {"from": "built", "engine": {"name": "sm87-fp32", "build_seconds": 61.5, "engine_bytes": 271_000_000}},
        "parity": {
            "passed": True,
            "made_by": "onnxruntime 9.9.9",
            "activations": "float16",
            "stages": {"decode": {"cosine": 0.99999, "max_abs_error": 0.0123, "relative_error": 0.00456}},
            "top1": 0.9877,
            "greedy_prefix": [20, 17],
            "tokens": [20, 20],
            "failure": None,
        },
        "benchmark": {
            **timed,
            "session": "tensorrt 10.3 on Orin",
            "telemetry": {"mean_power_w": 11.9, "missing": None},
        },
        **changes,
    }


#: As a manifest lists it; its files are those of a tiny bundle.
ENGINE = {
    "name": "sm89-fp16",
    "backend": "tensorrt-rtx",
    "backend_version": "1.7.1.116",
    "compute_capabilities": ["89"],
    "device": "rtx-4090",
    "dtype": "fp16",
    "max_batch_size": 1,
    "max_input_len": 1024,
    "max_kv_cache_capacity": 4096,
    "plugins": [
        {
            "name": "TPAAttention",
            "version": "1",
            "namespace": "",
            "nodes": 5,
            "library": "tokenizer.json",
            "sha256": "d" * 64,
        }
    ],
    "file": "model.onnx",
    "cuda": "13",
    "profiles": [],
    "graph_sha256": "e" * 64,
    "cache_key": "f" * 64,
    "options": ["weight_streaming"],
    "engine_bytes": 271_234_567,
    "weights_bytes": None,
    "activation_bytes": 12_345_678,
    "build_seconds": 61.49,
    "build_peak_memory_bytes": 1_234_567_890,
}


def with_manifest(bundle: Bundle, **changes: Any) -> Bundle:
    """The same bundle after its manifest was written anew with other fields."""
    file = bundle.path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return read_bundle(bundle.path)
