"""genai_config.json: its contents, and the real onnxruntime-genai running bundles with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.bundle import read_bundle
from edgekit.chat.tokenizer import tokenizer_from_bundle
from edgekit.checkpoint import open_checkpoint
from edgekit.export.bundle_from_checkpoint import ExportOptions, bundle_from_checkpoint
from edgekit.export.genai_config import GENAI_FILE, KNOWN_MODEL_TYPES, genai_config
from edgekit.progress import SilentProgress
from edgekit.runtime.generate import generate
from edgekit.runtime.options import Finished, GenerationOptions
from edgekit.runtime.session import session_from_bundle
from tests.parity.tiny_models import write_checkpoint

MODEL = {
    "model_type": "llama",
    "layers": 2,
    "heads": 4,
    "kv_heads": 2,
    "head_dim": 8,
    "hidden_size": 32,
    "vocab_size": 100,
}
TOKENS: dict[str, Any] = {"bos": 1, "eos": [2], "pad": 3, "add_bos": False}
PROMPT = "hello world, hello"


def config(generation: dict[str, Any] | None = None, **changes: Any) -> Any:
    tokens = {**TOKENS, **{key: value for key, value in changes.items() if key in TOKENS}}
    model = {**MODEL, **{key: value for key, value in changes.items() if key in MODEL}}
    return genai_config(model, tokens, generation or {}, max_context=64)


def test_a_model_that_genai_does_not_know_has_none() -> None:
    assert config(model_type="tpa") is None
    assert all(config(model_type=name)["model"]["type"] == name for name in KNOWN_MODEL_TYPES)


def test_without_an_end_token_there_is_none() -> None:
    assert config(eos=[]) is None


def test_names_are_those_of_the_graph() -> None:
    decoder = config()["model"]["decoder"]
    assert decoder["inputs"] == {
        "input_ids": "input_ids",
        "attention_mask": "attention_mask",
        "past_key_names": "past_key_values.%d.key",
        "past_value_names": "past_key_values.%d.value",
    }
    assert decoder["outputs"] == {
        "logits": "logits",
        "present_key_names": "present.%d.key",
        "present_value_names": "present.%d.value",
    }


def test_tokens() -> None:
    assert config()["model"]["eos_token_id"] == 2
    several = config(eos=[5, 6], bos=None, pad=None)["model"]
    assert several["eos_token_id"] == [5, 6]
    assert (several["bos_token_id"], several["pad_token_id"]) == (5, 5)


def test_sampling_comes_from_the_checkpoint() -> None:
    search = config({"do_sample": True, "temperature": 0.6, "top_p": 0.9, "transformers_version": "5"})["search"]
    assert (search["do_sample"], search["temperature"], search["top_p"], search["top_k"]) == (True, 0.6, 0.9, 50)
    assert "transformers_version" not in search
    assert (search["max_length"], search["past_present_share_buffer"]) == (64, True)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Bundles of tiny random models in the ort form, by name and type of the weights, made once."""
    folder = tmp_path_factory.mktemp("genai")

    def bundle(name: str, dtype: str = "fp32") -> Path:
        path = folder / f"{name}.{dtype}"
        if not path.exists():
            like, changes = name, {}
            if name == "mistral":
                like, changes = "llama", {"model_type": "mistral", "sliding_window": None}
            elif name == "gemma3_text":  # tied, its scaled random embedding would only repeat the last token
                changes = {"tie_word_embeddings": False}
            export(str(write_checkpoint(folder / f"{name}.{dtype}.weights", like, seed=3, **changes)), path, dtype)
        return path

    return bundle


def export(checkpoint: str, path: Path, dtype: Any) -> None:
    short = {"calibration_sequences": 2, "calibration_length": 32} if dtype == "int4" else {}
    options = ExportOptions(dtype=dtype, form="ort", **short)
    bundle_from_checkpoint(open_checkpoint(checkpoint), path, options, overwrite=False, progress=SilentProgress())


def own_tokens(path: Path, prompt: list[int], count: int) -> list[int]:
    """What edgekit's runtime continues with, greedily, up to the end token."""
    bundle = read_bundle(path)
    session = session_from_bundle(bundle)
    options = GenerationOptions(max_new_tokens=count, stop_tokens=frozenset(bundle.manifest.tokens.eos))
    events = list(generate(session, tokenizer_from_bundle(bundle), prompt, options))
    finished = events[-1]
    assert isinstance(finished, Finished)
    return before_end(path, list(finished.tokens))


def before_end(path: Path, tokens: list[int]) -> list[int]:
    """The tokens before the first that ends a text."""
    ends = set(read_bundle(path).manifest.tokens.eos)
    return tokens[: next((i for i, token in enumerate(tokens) if token in ends), len(tokens))]


def genai_tokens(path: Path, prompts: list[list[int]], count: int) -> list[list[int]]:
    """What onnxruntime-genai continues a batch of prompts with, greedily, up to the end token."""
    import onnxruntime_genai as og

    model = og.Model(str(path))
    params = og.GeneratorParams(model)
    longest = max(map(len, prompts))
    params.set_search_options(max_length=longest + count, do_sample=False, batch_size=len(prompts))
    generator = og.Generator(model, params)
    pad = json.loads((path / GENAI_FILE).read_text())["model"]["pad_token_id"]
    generator.append_tokens([token for prompt in prompts for token in prompt + [pad] * (longest - len(prompt))])
    for _ in range(count):
        if generator.is_done():
            break
        generator.generate_next_token()
    rows = [[int(token) for token in generator.get_sequence(i)][longest:] for i in range(len(prompts))]
    return [before_end(path, row) for row in rows]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, "fp32") for name in ("llama", "mistral", "qwen2", "qwen3", "gemma3_text")]
    + [(name, dtype) for name in ("llama", "qwen3") for dtype in ("int8", "int4")],
)
def test_genai_generates_what_edgekit_does(tiny: Callable[..., Path], name: str, dtype: str) -> None:
    path = tiny(name, dtype)
    prompt = tokenizer_from_bundle(read_bundle(path)).encode(PROMPT)
    own = own_tokens(path, prompt, 24)
    assert len(set(own)) > 3
    assert genai_tokens(path, [prompt], 24) == [own]


def test_genai_generates_for_prompts_of_unequal_length(tiny: Callable[..., Path]) -> None:
    path = tiny("llama")
    tokenizer = tokenizer_from_bundle(read_bundle(path))
    prompts = [tokenizer.encode(text) for text in (PROMPT, "wor")]
    for prompt, found in zip(prompts, genai_tokens(path, prompts, 8), strict=True):
        assert found == own_tokens(path, prompt, 8)


def test_genai_reads_the_tokenizer(tiny: Callable[..., Path]) -> None:
    import onnxruntime_genai as og

    path = tiny("llama")
    tokenizer = og.Tokenizer(og.Model(str(path)))
    expected = tokenizer_from_bundle(read_bundle(path)).encode(PROMPT)
    assert [int(token) for token in tokenizer.encode(PROMPT)] == expected
    assert tokenizer.decode(expected) == PROMPT


def test_the_portable_form_has_none(tmp_path: Path) -> None:
    """Its cache grows by concatenation, which genai's shared buffers do not fit."""
    weights = write_checkpoint(tmp_path / "weights", "llama")
    options = ExportOptions(dtype="fp32", form="portable")
    path = bundle_from_checkpoint(
        open_checkpoint(weights), tmp_path / "bundle", options, overwrite=False, progress=SilentProgress()
    )
    assert not (path / GENAI_FILE).exists()


@pytest.mark.model
@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_genai_runs_smollm2_as_edgekit_does(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "bundle"
    export("smollm2-135m", path, dtype)
    text = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    prompt = tokenizer_from_bundle(read_bundle(path)).encode(text)
    own = own_tokens(path, prompt, 48)
    assert genai_tokens(path, [prompt], 48) == [own]
    assert "Paris" in tokenizer_from_bundle(read_bundle(path)).decode(own)
