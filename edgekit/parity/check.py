"""The comparison of a bundle with its PyTorch model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

import numpy as np
import onnx

from edgekit import contract
from edgekit.bundle import Bundle
from edgekit.chat.tokenizer import tokenizer_from_bundle
from edgekit.checkpoint import Checkpoint
from edgekit.draft.head_file import DraftFile
from edgekit.errors import BundleError, PromptError
from edgekit.models.registry import model_from_checkpoint
from edgekit.parity.compare import Floats, agreement, divergence
from edgekit.parity.corrections import OPERATOR
from edgekit.parity.dequantized import DequantizedWeights, stored_matrices, with_corrections
from edgekit.parity.draft import draft_comparison
from edgekit.parity.observe import Comparison, Observation, observe
from edgekit.parity.origin import heads_of
from edgekit.parity.prompts import shipped_prompts
from edgekit.parity.report import Agreement, ParityReport, WeightCheck
from edgekit.parity.tapped import EXACT_INPUT_BITS, TappedSession
from edgekit.parity.tolerance import GRAPH, MODEL
from edgekit.parity.torch_session import TorchSession, greedy
from edgekit.parity.weights import weight_check
from edgekit.progress import Progress, SilentProgress
from edgekit.runtime.ort_session import OrtSession
from edgekit.runtime.prefix import common_prefix
from edgekit.runtime.session import session_from_bundle

#: How many tokens each prompt is continued by.
TOKENS = 64
#: Tokens of a piece in mode "chunked"; not a power of two, so that no border falls on a kernel's own.
CHUNK = 37
#: Steps of mode "decode", which looks at every layer and is slow where kernels round activations by default; mode
#: "runtime" takes as many as there are tokens.
DECODE_STEPS = 4

_QUANTIZED = ("int8", "int4")


def parity_of(
    bundle: Bundle,
    checkpoint: Checkpoint,
    *,
    prompts: Sequence[str] | None = None,
    tokens: int = TOKENS,
    threads: int | None = None,
    heads: DraftFile | None = None,
    progress: Progress | None = None,
) -> ParityReport:
    """Continue each prompt greedily with PyTorch in float32, then compare both over the same tokens.

    An unquantised graph is compared with the checkpoint's weights. A quantised one is compared with a model that
    holds the values of the bundle's codes, which proves the graph; its codes are compared with the checkpoint's
    weights, and its choices with the original model's.

    Args:
        prompts: texts; None for those that are shipped.
        tokens: length of each continuation.
        threads: of ONNX Runtime; None for one per physical core.
        heads: the draft heads that the bundle was made with; None for those that its provenance names, if any.

    Raises:
        CheckpointError: the bundle's draft heads are not where they were.
        PromptError: a prompt is empty or too long for the bundle's context.
        BundleError: the bundle cannot be read, or does not belong to the checkpoint.
        ModelError: the checkpoint's model cannot be built.
    """
    progress = progress or SilentProgress()
    dtype = bundle.manifest.dtype
    if dtype not in MODEL:
        raise BundleError(
            f"parity knows the tolerances of {', '.join(MODEL)}", f"the bundle's dtype is {dtype!r}", "update edgekit"
        )
    check_geometry(bundle, checkpoint)
    heads = heads or heads_of(bundle)
    layers = heads.heads.config.feature_layers if heads is not None else ()
    encoded = _encoded(bundle, prompts if prompts is not None else shipped_prompts(), tokens)
    longest = max(map(len, encoded)) + tokens
    graph = onnx.load(bundle.graph, load_external_data=False)
    activations = activations_of(graph, dtype)

    dequantized, weights = checked_weights(bundle, graph, checkpoint, progress)
    stored = bool(weights)

    progress.stage("loading PyTorch models")
    model = model_from_checkpoint(checkpoint, max_positions=longest)
    original = reference = TorchSession(model, layers)
    if stored:
        reference = TorchSession(model_from_checkpoint(dequantized, max_positions=longest), layers)
    progress.stage("continuing prompts with PyTorch", tokens, "tokens")
    continuations = greedy(model, encoded, tokens, progress.advance)
    texts = [(len(prompt), [*prompt, *more]) for prompt, more in zip(encoded, continuations, strict=True)]

    progress.stage("loading the bundle")
    tapped = TappedSession(bundle, longest + 8, threads)
    comparison, choices = Comparison(), Choices(tokens)
    exact = GRAPH["float16" if _is_half(graph, dtype) else "float32"]
    with ExitStack() as stack:
        runtime = stack.enter_context(closing(session_from_bundle(bundle, threads=threads)))
        assert isinstance(runtime, OrtSession)
        drafts = None
        if heads is not None:
            drafts = stack.enter_context(closing(draft_comparison(bundle, heads, model, threads)))
        progress.stage("comparing", len(texts), "prompts")
        for prompt_length, text in texts:
            expected = observe(reference, text, [len(text)])
            steps = min(DECODE_STEPS, tokens)
            comparison.add("prefill", exact, observe(tapped, text, [len(text)]), expected)
            comparison.add("chunked", exact, observe(tapped, text, pieces_of(len(text), CHUNK)), expected)
            comparison.add("decode", exact, observe(tapped, text, [len(text) - steps] + [1] * steps), expected)
            stepped = observe(runtime, text, [prompt_length] + [1] * tokens)
            comparison.add("runtime", GRAPH[activations], stepped, expected)
            wanted = observe(original, text, [len(text)]) if stored else expected
            choices.add(stepped, wanted, prompt_length, text)
            if drafts is not None and wanted.features is not None:
                drafts.add(wanted.features, text)
            progress.advance()
    return ParityReport(
        checkpoint=str(checkpoint.path),
        form=bundle.manifest.form,
        dtype=dtype,
        activations=activations,
        reference="dequantized" if stored else "original",
        prompts=len(texts),
        weights=tuple(weights),
        stages=comparison.stages(),
        model=choices.result(_tolerance_of(dtype, activations, dequantized)),
        draft=drafts.result() if drafts is not None else None,
    )


def checked_weights(
    bundle: Bundle, graph: onnx.ModelProto, checkpoint: Checkpoint, progress: Progress
) -> tuple[DequantizedWeights, list[WeightCheck]]:
    """The values that a bundle's codes stand for, each matrix compared with the checkpoint's.

    Raises:
        BundleError: the bundle's dtype says otherwise than its graph, or a matrix cannot be read.
    """
    dtype = bundle.manifest.dtype
    stored = stored_matrices(graph, bundle.graph.parent, checkpoint)
    rounded = [name for name, matrix in stored.items() if not matrix.as_compressed]
    # Where all is factors nothing is left to round, and forms that spell operators out hold no matrix to read.
    if bool(rounded) != (dtype in _QUANTIZED) and (rounded or not (stored or with_corrections(checkpoint))):
        raise BundleError(
            "a bundle of int8 or int4 holds quantised matrices, another holds none",
            f"its dtype is {dtype}, and {len(rounded)} of its matrices are quantised",
            "export the bundle again with this version of edgekit",
        )
    dequantized = DequantizedWeights(checkpoint, stored)
    weights: list[WeightCheck] = []
    if stored:
        progress.stage("comparing weights", len(stored), "matrices")
        for name, matrix in stored.items():
            weights.append(weight_check(name, matrix, dequantized))
            progress.advance()
    return dequantized, weights


def _tolerance_of(dtype: str, activations: str, weights: DequantizedWeights) -> str:
    """The dtype by whose tolerance a bundle's choices are judged: its own, unless a compressed checkpoint's factors are
    multiplied by activations of 8 or 16 bits, or were multiplied together in float16."""
    rounds = activations in ("int8", "int16")
    if dtype in _QUANTIZED or not (weights.as_compressed and (rounds or weights.contracted)):
        return dtype
    return "int8" if activations == "int8" else "fp16"


def pieces_of(length: int, size: int) -> list[int]:
    """`length` in pieces of `size`, the last one shorter."""
    return [min(size, length - start) for start in range(0, length, size)]


@dataclass
class Choices:
    """Collects how far the bundle's distribution over the next token is from the original model's.

    Attributes:
        tokens: the length of each greedy continuation.
    """

    tokens: int
    divergences: list[Floats] = field(default_factory=list)
    agreeing: int = 0
    prefixes: list[int] = field(default_factory=list)

    def add(self, found: Observation, original: Observation, prompt: int, text: Sequence[int]) -> None:
        """One text, whose tokens from `prompt` on are the original model's choices.

        As long as the bundle agrees its own continuation would have been the same text, so the first disagreement
        ends the common prefix of both continuations.
        """
        self.divergences.append(divergence(found.logits, original.logits))
        self.agreeing += int(agreement(found.logits, original.logits).sum())
        chosen = found.logits[prompt - 1 : -1].argmax(axis=1)
        self.prefixes.append(common_prefix(chosen.tolist(), text[prompt:]))

    def result(self, dtype: str) -> Agreement:
        """All texts together, with the tolerance of that dtype."""
        all_positions = np.concatenate(self.divergences)
        return Agreement(
            positions=len(all_positions),
            kl_mean=float(all_positions.mean()),
            kl_max=float(all_positions.max()),
            top1=self.agreeing / len(all_positions),
            greedy_tokens=self.tokens,
            greedy_prefixes=tuple(self.prefixes),
            tolerance=MODEL[dtype],
        )


def activations_of(graph: onnx.ModelProto, dtype: str) -> str:
    """What matrix products read their activations in when the bundle runs: "int8", "int16", "float16" or
    "float32".

    ONNX Runtime makes products of 8-bit activations of DequantizeLinear and MatMul too, unless told otherwise.
    """
    if any(_rounds_activations(node) for node in graph.graph.node):
        return "int8"
    if any(_rounds_to_16_bits(node) for node in graph.graph.node) and not _is_half(graph, dtype):
        return "int16"
    return "float16" if _is_half(graph, dtype) else "float32"


def _is_half(graph: onnx.ModelProto, dtype: str) -> bool:
    """Whether the graph computes in float16, told by its cache."""
    half = any(
        value.name.startswith(contract.past_name(0, ""))
        and value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
        for value in graph.graph.input
    )
    return half or dtype == "fp16"


def _rounds_activations(node: onnx.NodeProto) -> bool:
    levels = (attribute.i for attribute in node.attribute if attribute.name == "accuracy_level")
    return node.op_type == "DequantizeLinear" or (node.op_type == "MatMulNBits" and 4 in levels)


def _rounds_to_16_bits(node: onnx.NodeProto) -> bool:
    values = {attribute.name: attribute.i for attribute in node.attribute}
    return node.op_type == OPERATOR and values.get("base_bits", 0) > 0 and values.get("input_bits") != EXACT_INPUT_BITS


def _encoded(bundle: Bundle, prompts: Sequence[str], tokens: int) -> list[list[int]]:
    tokenizer = tokenizer_from_bundle(bundle)
    encoded = [tokenizer.encode(prompt, add_bos=True) for prompt in prompts]
    limit = bundle.manifest.cache.capacity_limit
    if not encoded or not all(encoded):
        raise PromptError("a prompt must hold at least one token", "one of them is empty", "write text into it")
    if max(map(len, encoded)) + tokens > limit:
        raise PromptError(
            "a prompt and its continuation must fit into the bundle's context",
            f"the longest prompt has {max(map(len, encoded))} tokens, {tokens} follow, the context holds {limit}",
            "give shorter --prompts or fewer --tokens",
        )
    return encoded


def check_geometry(bundle: Bundle, checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint of another architecture or size before anything is loaded."""
    model = bundle.manifest.model
    for field_name, expected in (
        ("model_type", model.model_type),
        ("num_hidden_layers", model.layers),
        ("hidden_size", model.hidden_size),
        ("vocab_size", model.vocab_size),
    ):
        found = checkpoint.config.get(field_name)
        if found != expected:
            raise BundleError(
                "a bundle is compared with the checkpoint that it was made from",
                f"the bundle's {field_name} is {expected}, that of {checkpoint.path} is {found}",
                "give the right one with --against CHECKPOINT",
            )
