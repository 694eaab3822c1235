"""How a directory of sentence-transformers says that it pools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgekit.checkpoint.pooling_files import Pooling, pooling_files, pooling_of
from edgekit.errors import CheckpointError

STEPS = ("Transformer", "Pooling", "Normalize")
MEAN = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True, "word_embedding_dimension": 8}


def directory(path: Path, steps: tuple[str, ...] = STEPS, pooling: dict[str, Any] = MEAN, most: Any = 256) -> Path:
    modules = [
        {"idx": i, "path": "" if i == 0 else f"{i}_{step}", "type": f"sentence_transformers.models.{step}"}
        for i, step in enumerate(steps)
    ]
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "1_Pooling").mkdir()
    (path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": most}))
    return path


def test_what_a_published_directory_says(tmp_path: Path) -> None:
    assert pooling_of(directory(tmp_path)) == Pooling("mean", True, 256)
    assert pooling_files(tmp_path) == ["modules.json", "sentence_bert_config.json", "1_Pooling/config.json"]


@pytest.mark.parametrize("config", [{"pooling_mode_cls_token": True}, {"pooling_mode": "cls"}])
def test_the_first_token_without_normalisation_and_limit(tmp_path: Path, config: dict[str, Any]) -> None:
    directory(tmp_path, STEPS[:2], config)
    (tmp_path / "sentence_bert_config.json").unlink()
    assert pooling_of(tmp_path) == Pooling("cls", False, None)


def test_a_plain_checkpoint_says_nothing(tmp_path: Path) -> None:
    assert pooling_files(tmp_path) == []
    with pytest.raises(CheckpointError, match="no modules.json"):
        pooling_of(tmp_path)


@pytest.mark.parametrize(
    ("pooling", "fact"),
    [
        ({"pooling_mode_max_tokens": True}, "pooling_mode_max_tokens"),
        ({**MEAN, "pooling_mode_cls_token": True}, "cls and mean"),
        ({}, "none"),
        ({"pooling_mode": "weightedmean"}, "weightedmean"),
    ],
)
def test_other_ways_of_pooling_are_refused(tmp_path: Path, pooling: dict[str, Any], fact: str) -> None:
    with pytest.raises(CheckpointError, match=f"asks for {fact}"):
        pooling_of(directory(tmp_path, pooling=pooling))


def test_a_further_step_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="Transformer, Pooling, Dense"):
        pooling_of(directory(tmp_path, ("Transformer", "Pooling", "Dense")))


@pytest.mark.parametrize("place", ["../elsewhere", "/etc", "a\\b", 7])
def test_a_step_outside_of_the_directory_is_refused(tmp_path: Path, place: Any) -> None:
    directory(tmp_path)
    (tmp_path / "modules.json").write_text(json.dumps([{"path": "", "type": "T"}, {"path": place, "type": "Pooling"}]))
    for use in (pooling_of, pooling_files):
        with pytest.raises(CheckpointError, match="no directory of the checkpoint"):
            use(tmp_path)


@pytest.mark.parametrize("content", ["{", "{}", "[]", "[1]"])
def test_a_damaged_list_of_steps_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "modules.json").write_text(content)
    with pytest.raises(CheckpointError, match="modules.json"):
        pooling_of(tmp_path)


@pytest.mark.parametrize("most", [0, "256", True, 2.5])
def test_a_limit_that_is_none_is_refused(tmp_path: Path, most: Any) -> None:
    with pytest.raises(CheckpointError, match="max_seq_length"):
        pooling_of(directory(tmp_path, most=most))
