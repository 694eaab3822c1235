"""What a plan is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from edgekit.errors import DeviceError, ModelError
from edgekit.plan.drafts import Drafts
from edgekit.plan.model_sizes import ModelSizes
from edgekit.plan.storage import Compression

#: Context planned for unless asked otherwise; the model's own limit where that is smaller.
DEFAULT_CONTEXT = 4096
DEFAULT_MAX_INPUT = 512

OWN, TPA = "own", "tpa"
ATTENTIONS = (OWN, TPA)


@dataclass(frozen=True)
class PlanOptions:
    """How the model is to run.

    Attributes:
        dtype: of the weights, one of `edgekit.plan.storage.DTYPES`.
        context: tokens that the cache holds for each sequence.
        batch: sequences at once.
        max_input: most new tokens in one step: a longer prompt is read in pieces.
        prompt: tokens of the prompt whose time to first token is told.
        attention: `OWN`, or `TPA` for what `edgekit convert --attention tpa` makes of it.
        cache_ratio: with `TPA`: bytes of the cache over those of the original.
        resident_weight_bytes: with weight streaming: how much of the weights stays on the GPU; None for all.
        compression: terms for features that have no option of their own.
        drafts: what proposes tokens; None for plain decoding alone.
        assumed: what was not asked for and is not plain, in sentences.
    """

    dtype: str
    context: int
    batch: int = 1
    max_input: int = DEFAULT_MAX_INPUT
    prompt: int = DEFAULT_MAX_INPUT
    attention: str = OWN
    cache_ratio: float = 1.0
    resident_weight_bytes: int | None = None
    compression: Compression = field(default_factory=Compression)
    drafts: Drafts | None = None
    assumed: tuple[str, ...] = ()

    @property
    def of_plain_steps(self) -> Compression:
        """The compression as plain steps see it: they read no draft heads, though these take memory."""
        return replace(self.compression, draft_head_bytes=0)


def options_for(
    sizes: ModelSizes,
    *,
    dtype: str,
    context: int | None = None,
    batch: int = 1,
    max_input: int | None = None,
    prompt: int | None = None,
    attention: str = OWN,
    cache_ratio: float | None = None,
    drafts: Drafts | None = None,
) -> PlanOptions:
    """Options with defaults that suit the model.

    Raises:
        ModelError: more context than the model serves.
        DeviceError: numbers that mean nothing (a ratio without a conversion, more input than context).
    """
    own = sizes.max_position_embeddings
    if context is not None and context > own:
        raise ModelError(
            "the context must be one that the model serves",
            f"{context:,} tokens were asked for, and the model serves {own:,}",
            f"choose --context {own} or less",
        )
    context = context or min(DEFAULT_CONTEXT, own)
    if max_input is not None and max_input > context:
        raise DeviceError(
            "a step cannot take more new tokens than the context holds",
            f"--max-input-len is {max_input:,}, the context {context:,}",
            f"choose --max-input-len {context} or less",
        )
    max_input = max_input or min(DEFAULT_MAX_INPUT, context)
    if prompt is not None and prompt > context:
        raise DeviceError(
            "a prompt must fit into the context",
            f"--prompt is {prompt:,}, the context {context:,}",
            f"choose --prompt {context} or less, or a longer --context",
        )
    if (attention == TPA) != (cache_ratio is not None):
        raise DeviceError(
            "--cache-ratio goes with --attention tpa, and the other way round",
            "one was given without the other",
            "give both, for example --attention tpa --cache-ratio 0.5",
        )
    if drafts is not None and batch > 1:
        raise DeviceError(
            "what drafting wins is told for one sequence",
            f"--batch is {batch}: a step of several goes on by what the slowest accepts",
            "leave --batch out, or --draft-tokens and --acceptance",
        )
    return PlanOptions(
        dtype=dtype,
        context=context,
        batch=batch,
        max_input=max_input,
        prompt=min(prompt or DEFAULT_MAX_INPUT, context),
        attention=attention,
        cache_ratio=cache_ratio or 1.0,
        compression=Compression(draft_head_bytes=(drafts.graph_bytes or 0) if drafts else 0),
        drafts=drafts,
    )
