"""A Hugging Face directory as a checkpoint: config.json, safetensors (one file or indexed shards), tokenizer files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgekit.checkpoint.hugging_face_tokenizer import TOKENIZER_FILES, tokenizer_files_from_directory
from edgekit.checkpoint.interface import Array, Checkpoint, TensorSpec, unknown_tensor
from edgekit.checkpoint.json_file import bad_json, read_json_object
from edgekit.checkpoint.pooling_files import pooling_files
from edgekit.checkpoint.safetensors_header import DTYPES, SafeTensor, read_safetensors_header
from edgekit.errors import CheckpointError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
#: A buffer that old versions of transformers saved beside the weights; it follows from the configuration.
_BUFFER_SUFFIX = ".rotary_emb.inv_freq"


def _is_shard_name(file: object) -> bool:
    """Whether it is a plain file name: an index must not lead out of its directory."""
    return isinstance(file, str) and Path(file).name == file and "\\" not in file and file.endswith(".safetensors")


class HuggingFaceCheckpoint(Checkpoint):
    """Opens the directory and checks every header; raises CheckpointError for what is damaged, missing or a pickle."""

    format = "safetensors"

    def __init__(self, path: Path) -> None:
        self.path = path
        weights = self._weight_files()
        self.config = read_json_object(path / "config.json")
        if not isinstance(self.config.get("model_type"), str):
            raise CheckpointError(
                'config.json must name its architecture in "model_type"',
                f"{path / 'config.json'} has {self.config.get('model_type')!r}",
                "take the config.json that belongs to the weights",
            )
        self._shards = sorted(set(weights.values())) if isinstance(weights, dict) else [weights]
        self._tensors = self._read(weights)

    def _weight_files(self) -> Path | dict[str, Path]:
        """The single weight file, or tensor name -> shard as the index says."""
        if (self.path / SINGLE).is_file():
            return self.path / SINGLE
        if (self.path / INDEX).is_file():
            return self._index()
        rule = f"the weights must be safetensors: {SINGLE}, or shards with {INDEX}"
        pickles = sorted(p.name for pattern in _PICKLES for p in self.path.glob(pattern))
        ggufs = sorted(p.name for p in self.path.glob("*.gguf"))
        if pickles:
            raise CheckpointError(
                rule,
                f"{self.path} holds {', '.join(pickles[:3])}, a pickle, which can run code when it is loaded",
                "convert it where you trust it: AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(NEW)",
            )
        if (self.path / "manifest.json").is_file():
            raise CheckpointError(rule, f"{self.path} is a bundle", "give the checkpoint that the bundle was made from")
        if ggufs:
            raise CheckpointError(rule, f"{self.path} holds {ggufs[0]}", f"give the file: {self.path / ggufs[0]}")
        raise CheckpointError(
            rule, f"{self.path} holds neither", "give a directory with weights, a .gguf file, or a known name"
        )

    def _index(self) -> dict[str, Path]:
        weight_map = read_json_object(self.path / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise bad_json(self.path / INDEX, 'has no "weight_map"')
        shards: dict[str, Path] = {}
        for name, file in weight_map.items():
            # Only a plain file name: an index must not lead out of its directory.
            if (
                not isinstance(file, str)
                or Path(file).name != file
                or "\\" in file
                or not file.endswith(".safetensors")
            ):
                raise bad_json(self.path / INDEX, f"puts {name!r} into {str(file)[:80]!r}, which is no shard's name")
            shards[name] = self.path / file
        missing = sorted({p.name for p in shards.values() if not p.is_file()})
        if missing:
            raise CheckpointError(
                f"every shard named in {INDEX} must be there",
                f"{self.path} lacks {', '.join(missing[:5])}{' and more' if len(missing) > 5 else ''}",
                "fetch the missing files",
            )
        return shards

    def _read(self, weights: Path | dict[str, Path]) -> dict[str, tuple[Path, SafeTensor]]:
        if isinstance(weights, Path):
            found = {name: (weights, tensor) for name, tensor in read_safetensors_header(weights).items()}
        else:
            headers = {shard: read_safetensors_header(shard) for shard in self._shards}
            self._check_index(weights, {(name, shard) for shard, names in headers.items() for name in names})
            found = {name: (shard, headers[shard][name]) for name, shard in weights.items()}
        return {name: entry for name, entry in found.items() if not name.endswith(_BUFFER_SUFFIX)}

    def _check_index(self, weights: dict[str, Path], stored: set[tuple[str, Path]]) -> None:
        for verb, rest in (
            ("names", set(weights.items()) - stored),
            ("does not name", stored - set(weights.items())),
        ):
            if rest:
                name, shard = min(rest)
                raise CheckpointError(
                    f"{INDEX} must name exactly the tensors that its shards hold",
                    f"it {verb} {name!r} in {shard.name}, {'which lacks it' if verb == 'names' else 'which holds it'}"
                    f" ({len(rest)} such)",
                    "the index and the shards are of different versions: fetch both again",
                )

    def names(self) -> list[str]:
        return list(self._tensors)

    def _entry(self, name: str) -> tuple[Path, SafeTensor]:
        if name not in self._tensors:
            raise unknown_tensor(name, self.path, self._tensors)
        return self._tensors[name]

    def spec(self, name: str) -> TensorSpec:
        tensor = self._entry(name)[1]
        dtype = DTYPES[tensor.dtype][0] if tensor.dtype in DTYPES else tensor.dtype
        return TensorSpec(name, tensor.shape, dtype, tensor.nbytes)

    def array(self, name: str) -> Array:
        path, tensor = self._entry(name)
        if tensor.dtype not in DTYPES:
            raise CheckpointError(
                f"a weight's dtype must be one of {', '.join(DTYPES)}",
                f"{path}: {name} is {tensor.dtype}",
                "take the unquantised weights of the same model, or a GGUF of it",
            )
        return self._mapped(path, tensor, DTYPES[tensor.dtype][0])

    def _mapped(self, path: Path, tensor: SafeTensor, kind: str) -> Array:
        """The tensor's data as that NumPy dtype, a view of the mapped file where it is aligned."""
        import ml_dtypes

        dtype = np.dtype(ml_dtypes.bfloat16) if kind == "bfloat16" else np.dtype(kind)
        if tensor.nbytes == 0:
            return np.empty(tensor.shape, dtype)
        data = np.memmap(path, np.uint8, mode="r", offset=tensor.offset, shape=(tensor.nbytes,))
        array: Array = np.asarray(data).view(dtype).reshape(tensor.shape)
        # The format does not align its data, and not every kernel takes unaligned input.
        return array if array.flags.aligned else array.copy()

    def file_paths(self) -> list[Path]:
        extra = ["config.json", INDEX, *TOKENIZER_FILES, *pooling_files(self.path)]
        return [*self._shards, *(self.path / n for n in extra if (self.path / n).is_file() and self._belongs(n))]

    def _belongs(self, name: str) -> bool:
        return name != INDEX or self._shards != [self.path / SINGLE]

    def tokenizer_files(self) -> dict[str, bytes]:
        return tokenizer_files_from_directory(self.path, self.config)
