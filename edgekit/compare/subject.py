"""What is compared: bundles of one kind over the same tokens, and the reference that they are measured to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.bundle import MANIFEST_NAME, Bundle, read_bundle, read_sidecar
from edgekit.contract import KIND_ENCODER
from edgekit.errors import EdgekitError

if TYPE_CHECKING:
    from edgekit.checkpoint import Checkpoint
    from edgekit.runtime.session import DecoderSession


@dataclass(frozen=True)
class Engine:
    """How bundles are run. `threads`: never None here."""

    backend: str
    operators: str
    threads: int


@dataclass(frozen=True)
class Subject:
    """A bundle, or the checkpoint that is the reference.

    Attributes:
        label: short and unique among what is compared.
        bundle: None for a checkpoint.
        checkpoint: None for a bundle.
        reference_only: whether it is measured to, and not compared itself.
    """

    label: str
    path: Path
    bundle: Bundle | None
    checkpoint: Checkpoint | None = field(default=None, repr=False)
    reference_only: bool = False

    @property
    def bytes(self) -> int:
        """Of the files that the manifest lists, or that the checkpoint consists of."""
        if self.bundle is not None:
            return self.bundle.manifest.bytes
        assert self.checkpoint is not None
        return sum(path.stat().st_size for path in self.checkpoint.file_paths())

    @property
    def proven(self) -> bool | None:
        """Whether this very bundle has passed `edgekit parity`; None where that was never tried."""
        if self.bundle is None:
            return None
        found = read_sidecar(self.bundle, "parity")
        return None if found is None else found.get("passed") is True

    def key(self, engine: Engine) -> dict[str, Any]:
        """All that numbers of it depend on, beside what it is asked."""
        if self.bundle is not None:
            from edgekit.evaluate.of_bundle import bundle_key

            return bundle_key(self.bundle, engine.backend, engine.operators, engine.threads)
        from edgekit.parity.reference_perplexity import checkpoint_key

        assert self.checkpoint is not None
        return checkpoint_key(self.checkpoint)

    def opener(self, engine: Engine, context: int) -> Callable[[], DecoderSession]:
        """Opens a decoder for windows of `context` tokens."""
        bundle, checkpoint = self.bundle, self.checkpoint
        if bundle is not None:
            from edgekit.runtime.session import session_from_bundle

            return lambda: session_from_bundle(
                bundle, backend=engine.backend, threads=engine.threads, operators=engine.operators
            )
        assert checkpoint is not None
        from edgekit.models.registry import model_from_checkpoint
        from edgekit.parity.torch_session import TorchSession

        return lambda: TorchSession(model_from_checkpoint(checkpoint, max_positions=context))


@dataclass(frozen=True)
class Subjects:
    """What is compared, the reference first where it is not among the bundles."""

    all: tuple[Subject, ...]
    reference: Subject

    @property
    def compared(self) -> tuple[Subject, ...]:
        """Bundles in their order, without a reference that is only measured to."""
        return tuple(subject for subject in self.all if not subject.reference_only)

    @property
    def bundles(self) -> tuple[Bundle, ...]:
        """All that are bundles."""
        return tuple(subject.bundle for subject in self.all if subject.bundle is not None)

    @property
    def encoders(self) -> bool:
        """Whether they make embeddings."""
        return self.bundles[0].manifest.kind == KIND_ENCODER


def why(error: EdgekitError) -> str:
    """An error in one line."""
    return f"{error.rule}: {error.fact}" if error.fact else error.rule


def is_bundle(path: Path) -> bool:
    """Whether it is a directory with a manifest."""
    return (path / MANIFEST_NAME).is_file()


def open_subjects(paths: Sequence[Path], reference: str | None, *, offline: bool) -> Subjects:
    """Open what is to be compared.

    Args:
        reference: a bundle's path or what `open_checkpoint` takes; None for the first bundle.

    Raises:
        EdgekitError: they cannot be compared: one is given twice, or kinds or vocabularies differ.
        BundleError, CheckpointError: one cannot be read.
    """
    bundles = [read_bundle(path) for path in paths]
    other: Bundle | Checkpoint | None = None
    if reference is not None and is_bundle(Path(reference)):
        found = read_bundle(reference)
        known = [bundle for bundle in bundles if bundle.path.resolve() == found.path.resolve()]
        other = known[0] if known else found
    elif reference is not None:
        from edgekit.checkpoint import open_checkpoint

        other = open_checkpoint(reference, offline=offline)
    extra = isinstance(other, Bundle) and other not in bundles
    _refuse_twice([*bundles, *([other] if extra and isinstance(other, Bundle) else [])])
    labels = _labels([*paths, *([Path(str(reference))] if other is not None and other not in bundles else [])])
    made = [Subject(label, bundle.path, bundle) for label, bundle in zip(labels, bundles, strict=False)]
    if isinstance(other, Bundle):
        chosen = Subject(labels[-1], other.path, other, reference_only=True) if extra else made[bundles.index(other)]
    elif other is not None:
        chosen = Subject(f"{labels[-1]} (PyTorch)", other.path, None, other, reference_only=True)
    else:
        chosen = made[0]
    subjects = Subjects((*([chosen] if chosen.reference_only else []), *made), chosen)
    _refuse_kinds(subjects)
    _refuse_vocabularies(subjects)
    return subjects


def _refuse_twice(bundles: Sequence[Bundle]) -> None:
    seen: dict[str, Path] = {}
    for bundle in bundles:
        if (earlier := seen.get(bundle.manifest_sha256)) is not None:
            same = "it" if bundle.path == earlier else f"{bundle.path}, with the same manifest,"
            raise EdgekitError(
                "each bundle is compared once", f"{earlier} was given, and {same} again", "leave one of them out"
            )
        seen[bundle.manifest_sha256] = bundle.path


def _refuse_kinds(subjects: Subjects) -> None:
    first = subjects.bundles[0]
    for bundle in subjects.bundles[1:]:
        if bundle.manifest.kind != first.manifest.kind:
            raise EdgekitError(
                "decoders are compared with decoders, and encoders with encoders: nothing that is measured of one is "
                "measured of the other",
                f"{first.path} holds {_an(first)}, {bundle.path} {_an(bundle)}",
                "compare them apart",
            )


def _an(bundle: Bundle) -> str:
    return "an encoder" if bundle.manifest.kind == KIND_ENCODER else "a decoder"


def _refuse_vocabularies(subjects: Subjects) -> None:
    """What can be told from the sizes alone; the tokens of the text are compared later."""
    first = subjects.bundles[0]
    sizes = [(subject.label, _vocabulary(subject)) for subject in subjects.all]
    for label, size in sizes:
        if size != first.manifest.model.vocab_size:
            raise EdgekitError(
                "what is compared must have the same vocabulary",
                f"{first.path} has {first.manifest.model.vocab_size:,} tokens, {label} has {size if size else 'none'}",
                "compare bundles of models with the same tokenizer; bits per byte of edgekit eval compare others",
            )


def _vocabulary(subject: Subject) -> int | None:
    if subject.bundle is not None:
        return subject.bundle.manifest.model.vocab_size
    assert subject.checkpoint is not None
    found = subject.checkpoint.config.get("vocab_size")
    return found if isinstance(found, int) else None


def _labels(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths, alike in length, that tell them apart; the whole paths where none do."""
    parts = [path.parts for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        labels = ["/".join(part[-count:]) for part in parts]
        if len(set(labels)) == len(labels):
            return labels
    return [str(path) for path in paths]
