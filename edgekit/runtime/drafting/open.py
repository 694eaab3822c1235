"""What --draft asks for, opened for a bundle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgekit.contract import FORM_ORT, FORM_PORTABLE
from edgekit.errors import SessionError
from edgekit.runtime.drafting.acceptance import Source
from edgekit.runtime.drafting.controller import Controller
from edgekit.runtime.drafting.cp import CPDrafter, DraftSession
from edgekit.runtime.drafting.draft_session import OrtDraftSession
from edgekit.runtime.drafting.drafting import Drafting, Policy
from edgekit.runtime.drafting.fixed import FixedLength
from edgekit.runtime.drafting.interface import Drafter
from edgekit.runtime.drafting.ngram import NGramDrafter
from edgekit.runtime.drafting.vocabulary import draft_vocabulary
from edgekit.runtime.sampling import SamplingOptions
from edgekit.runtime.session import DecoderSession, session_from_bundle

if TYPE_CHECKING:
    from edgekit.bundle import Bundle, DraftInfo

AUTO, HEADS, COPIES, OFF = "auto", "cp", "ngram", "off"
CHOICES = (AUTO, HEADS, COPIES, OFF)

#: Chances of a copy's tokens by how much repeats (the grades of NGramDrafter), until a conversation tells better:
#: guesses.
_COPY_CHANCES = {2: 0.2, 3: 0.35, 4: 0.45, 6: 0.6, 8: 0.7, 16: 0.85}
#: Most tokens of a copy, unless more are asked for.
_LONGEST_COPY = 8
#: From this temperature on draft heads are expected to do as they did in training at temperature 1.
_WARM = 0.5


@contextmanager
def opened_for(
    bundle: Bundle,
    choice: str | Path | None,
    count: int | None = None,
    *,
    sampling: SamplingOptions,
    capacity: int | None = None,
    backend: str = "cpu",
    threads: int | None = None,
    operators: str = "auto",
) -> Iterator[tuple[DecoderSession, Drafting | None]]:
    """A bundle's session and what drafts for it, both closed at the end: see session_from_bundle and `drafting_for`.

    Raises:
        SessionError, BundleError, DoesNotFit: as these do; of what is open by then nothing is left.
    """
    choice = _choice(bundle, choice, sampling)
    # Before the weights are read, because it needs none.
    model = check_choice(bundle, choice)
    with ExitStack() as stack:
        session = session_from_bundle(bundle, backend=backend, threads=threads, capacity=capacity, operators=operators)
        stack.callback(session.close)
        engine = _Engine(backend, threads, operators, capacity)
        drafting = _drafting(bundle, choice, model, count, sampling, engine)
        if drafting is not None:
            stack.callback(drafting.close)
        yield session, drafting


def drafting_for(
    bundle: Bundle,
    choice: str | Path | None,
    count: int | None = None,
    *,
    sampling: SamplingOptions,
    backend: str = "cpu",
    threads: int | None = None,
    operators: str = "auto",
) -> Drafting | None:
    """Drafters of a bundle with what chooses among them.

    Args:
        choice: one of CHOICES, or the directory of a draft model's bundle. None for AUTO, but for OFF where the answer
            is to be the same each time and drafting would change it, see `repeats`.
        count: tokens of each draft; None for what is fastest, by measurement.
        sampling: how tokens are chosen; only to know what to expect at first.
        backend, threads, operators: of the model's session; drafters run alike.

    Returns:
        None for no drafting.

    Raises:
        SessionError: there are no draft heads, a draft model has other tokens, drafts cannot be that long, or an engine
            cannot be opened.
        BundleError: the bundle of a draft model, or the files of draft heads, are not what they should be; with
            TensorRT, no engine of the heads is there that this machine can run.
        DoesNotFit: memory ran out.
    """
    choice = _choice(bundle, choice, sampling)
    model = check_choice(bundle, choice)
    return _drafting(bundle, choice, model, count, sampling, _Engine(backend, threads, operators))


def drafters_for(
    bundle: Bundle,
    choice: str | Path,
    count: int | None = None,
    *,
    backend: str = "cpu",
    threads: int | None = None,
    operators: str = "auto",
) -> list[Drafter]:
    """The drafters alone, the first to be asked first; see `drafting_for`. Raises what it does."""
    return _drafters(bundle, choice, check_choice(bundle, choice), count, _Engine(backend, threads, operators))


def check_choice(bundle: Bundle, choice: str | Path) -> Bundle | None:
    """Refuse, before an engine is opened, draft heads that are not there and a draft model of other tokens.

    Returns:
        The draft model's bundle; None for what is no draft model.

    Raises:
        SessionError: as said.
        BundleError: a draft model's bundle is damaged.
    """
    if choice == HEADS and bundle.manifest.draft is None:
        raise SessionError(
            "--draft cp drafts with a bundle's draft heads",
            f"{bundle.path} has none",
            "train them: edgekit draft train CHECKPOINT -o HEADS.safetensors, and export with them: "
            "edgekit export CHECKPOINT -o BUNDLE --draft HEADS.safetensors; or choose --draft ngram",
        )
    if choice in CHOICES:
        return None
    from edgekit.bundle import read_bundle
    from edgekit.runtime.drafting.draft_model import check_same_tokens

    model = read_bundle(choice)
    check_same_tokens(bundle, model)
    return model


def policy_for(bundle: Bundle, count: int | None, sampling: SamplingOptions) -> Policy:
    """What chooses among drafters in a new conversation; see `drafting_for`."""
    if count is not None:
        return FixedLength(count)
    priors: dict[Source, Sequence[float]] = {
        Source(COPIES, grade): (chance,) for grade, chance in _COPY_CHANCES.items()
    }
    return Controller({**priors, Source(HEADS): _prior(bundle.manifest.draft, sampling)})


def repeats(bundle: Bundle) -> bool:
    """Whether tokens verified together are those of plain decoding, rounding in the last bits aside.

    ONNX Runtime's integer products round activations to 8 bits. What differs in a last bit before, as attention does
    for one token and for several, then becomes a whole step of these 8 bits here and there, and after some layers the
    logits differ as much as they do from those without such rounding: on SmolLM2-135M in int4 by 0.6 in the median,
    so that one token in twenty is another. Neither is more right. But the lengths of drafts follow measured times, and
    so the text would not be the same each time.
    """
    manifest = bundle.manifest
    return not (manifest.form in (FORM_ORT, FORM_PORTABLE) and manifest.dtype in ("int8", "int4"))


class _Engine(NamedTuple):
    """What drafters run in; see session_from_bundle."""

    backend: str
    threads: int | None
    operators: str
    capacity: int | None = None


def _drafting(
    bundle: Bundle, choice: str | Path, model: Bundle | None, count: int | None, sampling: SamplingOptions, run: _Engine
) -> Drafting | None:
    """`model`: see check_choice."""
    if choice == OFF:
        return None
    return Drafting(_drafters(bundle, choice, model, count, run), policy_for(bundle, count, sampling))


def _drafters(
    bundle: Bundle, choice: str | Path, model: Bundle | None, count: int | None, run: _Engine
) -> list[Drafter]:
    drafters: list[Drafter] = []
    try:
        if choice in (AUTO, COPIES):
            drafters.append(NGramDrafter(longest=max(count or 0, _LONGEST_COPY)))
        heads = bundle.manifest.draft
        if heads is not None and (choice == HEADS or (choice == AUTO and _runs_heads(bundle, run.backend))):
            drafters.append(CPDrafter(_draft_session(bundle, heads, run.backend, run.threads)))
        if model is not None:
            drafters.append(_draft_model(model, run))
        if count is not None:
            _check_length(count, drafters)
    except BaseException:
        for drafter in drafters:
            drafter.close()
        raise
    return drafters


def _choice(bundle: Bundle, choice: str | Path | None, sampling: SamplingOptions) -> str | Path:
    """What is asked for, or what is done where nothing is: see `drafting_for`."""
    if choice is not None:
        return choice
    return AUTO if repeats(bundle) or not (sampling.greedy or sampling.seed is not None) else OFF


def _runs_heads(bundle: Bundle, backend: str) -> bool:
    """Whether the bundle has what runs its draft heads with a backend: for TensorRT, an engine that runs here."""
    if backend != "tensorrt":
        return True
    from edgekit.runtime.trt_bundle import runs_draft_heads

    return runs_draft_heads(bundle)


def _draft_session(bundle: Bundle, heads: DraftInfo, backend: str, threads: int | None) -> DraftSession:
    vocabulary = draft_vocabulary(bundle, heads)
    if backend == "tensorrt":
        from edgekit.runtime.trt_bundle import open_draft_session

        return open_draft_session(bundle, vocabulary)
    return OrtDraftSession(bundle.file(heads.file), vocabulary, backend=backend, threads=threads)


def _prior(heads: DraftInfo | None, sampling: SamplingOptions) -> Sequence[float]:
    """Chances by position that heads reached in training; empty where it is not told.

    Drafts are the likeliest tokens where a seed has to give the same text, and where there is no chance.
    """
    certain = sampling.temperature < _WARM or sampling.seed is not None
    return () if heads is None else heads.acceptance.get("greedy" if certain else "sampled", ())


def _draft_model(bundle: Bundle, run: _Engine) -> Drafter:
    from edgekit.runtime.drafting.draft_model import DraftModelDrafter

    # Where its own context ends earlier, it proposes fewer tokens.
    capacity = None if run.capacity is None else min(run.capacity, bundle.manifest.cache.capacity_limit)
    session = session_from_bundle(
        bundle, backend=run.backend, threads=run.threads, capacity=capacity, operators=run.operators
    )
    return DraftModelDrafter(session)


def _check_length(count: int, drafters: Sequence[Drafter]) -> None:
    shortest = min(drafters, key=lambda drafter: drafter.longest)
    if count > shortest.longest:
        raise SessionError(
            "a draft has at most as many tokens as its drafter can propose",
            f"{count} were asked for, {shortest.name} proposes {shortest.longest}",
            f"choose --draft-tokens {shortest.longest} or less, or leave it out for what is fastest",
        )
