"""A directory of the published T6 training code as a checkpoint, and back: config.json and pytorch_model.bin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.checkpoint.hugging_face_tokenizer import TOKENIZER_FILES, tokenizer_files_from_directory
from edgekit.checkpoint.interface import Array, Checkpoint, TensorSpec, unknown_tensor
from edgekit.checkpoint.json_file import encode_json, read_json_object
from edgekit.checkpoint.t6_layout import (
    Place,
    config_from_training,
    config_to_training,
    ffn_of,
    hidden_size_of_mlp,
    is_training_config,
    places,
)
from edgekit.checkpoint.torch_pickle import read_pickled_tensors, write_pickled_tensors
from edgekit.errors import CheckpointError
from edgekit.files import atomic_write

WEIGHTS = "pytorch_model.bin"
_EMBEDDING, _HEAD = "transformer.wte.weight", "lm_head.weight"
#: The feed-forward hidden size is padded to a multiple of this: what block quantisation and kernels want.
FFN_MULTIPLE = 32


def is_t6_training_directory(path: Path) -> bool:
    """Whether it holds a checkpoint of the training code. A GPT-2 shares its model_type, not its sizes."""
    if not (path / WEIGHTS).is_file() or not (path / "config.json").is_file():
        return False
    return is_training_config(read_json_object(path / "config.json"))


class T6TrainingCheckpoint(Checkpoint):
    """Opens the directory; weights appear under this project's names and in its orders.

    Args:
        ffn_multiple: what the feed-forward hidden size is padded to with zeros, exactly; 1 for no padding.

    Raises CheckpointError for weights that are damaged, missing, unexpected or of another shape.
    """

    format = "t6-training"

    def __init__(self, path: Path, ffn_multiple: int = FFN_MULTIPLE) -> None:
        self.path = path
        theirs = read_json_object(path / "config.json")
        self._arrays = read_pickled_tensors(path / WEIGHTS)
        shapes = {name: array.shape for name, array in self._arrays.items()}
        self.config = config_from_training(theirs, shapes, ffn_multiple)
        self._places = places(self.config, ffn_of(shapes, self.config["hidden_size"]))
        self._check_weights()

    def _check_weights(self) -> None:
        expected = {place.key for place in self._places.values()}
        found = set(self._arrays) - {_HEAD}
        if _HEAD in self._arrays and not _equal(self._arrays[_HEAD], self._arrays.get(_EMBEDDING)):
            raise self._wrong("its lm_head differs from its embedding, to which it is tied")
        if missing := sorted(expected - found):
            raise self._wrong(f"it lacks {', '.join(missing[:3])} ({len(missing)} in all)")
        if extra := sorted(found - expected):
            raise self._wrong(f"it also holds {', '.join(extra[:3])} ({len(extra)} in all)")
        for place in self._places.values():
            if (shape := self._arrays[place.key].shape) != place.shape:
                raise self._wrong(f"{place.key} has shape {list(shape)}, not {list(place.shape)}")

    def _wrong(self, fact: str) -> CheckpointError:
        return CheckpointError(
            f"{WEIGHTS} must hold the weights of the T6 that config.json describes",
            f"{self.path}: {fact}",
            "check that both files belong together",
        )

    def names(self) -> list[str]:
        return list(self._places)

    def _place(self, name: str) -> Place:
        if name not in self._places:
            raise unknown_tensor(name, self.path, self._places)
        return self._places[name]

    def spec(self, name: str) -> TensorSpec:
        array = self.array(name)
        return TensorSpec(name, array.shape, array.dtype.name, array.nbytes)

    def array(self, name: str) -> Array:
        place = self._place(name)
        return place.load(self._arrays[place.key])

    def tokenizer_files(self) -> dict[str, bytes]:
        return tokenizer_files_from_directory(self.path, self.config)

    def file_paths(self) -> list[Path]:
        extra = [self.path / name for name in ("config.json", *TOKENIZER_FILES)]
        return [self.path / WEIGHTS, *(path for path in extra if path.is_file())]


def write_t6_training_directory(directory: Path, config: dict[str, Any], weights: Mapping[str, Array]) -> None:
    """Write a t6 model in the training layout; zeros that pad the feed-forward layer are cut off again.

    Args:
        config: a config.json of model_type "t6".
        weights: its weights by this project's names, all of them.

    Raises:
        CheckpointError: the layout cannot express the model, or weights are missing.
    """
    theirs = config_to_training(config)
    config = {"query": "factored", **config}
    ffn = hidden_size_of_mlp(config["hidden_size"])
    arrays: dict[str, Array] = {}
    for name, place in places(config, ffn).items():
        if name not in weights:
            raise CheckpointError("every weight must be given", f"{name} is missing", "give the whole model")
        arrays[place.key] = place.store(weights[name])
    arrays[_HEAD] = arrays[_EMBEDDING]
    directory.mkdir(parents=True, exist_ok=True)
    write_pickled_tensors(directory / WEIGHTS, arrays)
    atomic_write(directory / "config.json", encode_json(theirs))


def _equal(a: Array, b: Array | None) -> bool:
    return b is not None and a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
