"""`edgekit inspect op`: the list, one operator with the files of all of its pieces, and refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgekit.cli.inspect import command
from edgekit.ops.registry import operators
from edgekit.ops.spec import OperatorError


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def test_lists_the_operators() -> None:
    result = run("op")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.output.splitlines()] == operators()
    assert "(in traces only)" in result.output.splitlines()[0]
    assert [row["name"] for row in json.loads(run("op", "--json").output)] == operators()


@pytest.mark.parametrize("name", ["TPAAttention", "tpa_attention", "edgekit::TPAAttention"])
def test_shows_every_piece(name: str) -> None:
    result = run("op", name)
    assert result.exit_code == 0
    lines = [line.strip() for line in result.output.splitlines()]
    for start in ("operator         edgekit::TPAAttention, version 1", "inputs           a_q T [B, S, R_Q, H] if"):
        assert any(line.startswith(start) for line in lines), start
    assert "past_b_k T [B, P, R_K, D]: cache of b_k, rotated" in lines
    assert "frequencies int64 [D/2]: column of the tables that turns the pair (j, j + D/2)" in lines
    assert "plugin_version string = '1': of the TensorRT plugin" in lines
    assert any(line.startswith("variants         8, by factored_query") for line in lines)
    assert "float16: 1 - cosine at most 1e-06, error at most 0.0025 of the largest" in lines


def test_paths_exist() -> None:
    facts = json.loads(run("op", "TPAAttention", "--json").output)
    roles = {piece["role"]: Path(piece["path"]) for piece in facts["pieces"]}
    assert {"PyTorch reference", "ONNX function body", "generated header", "CUDA kernel", "TensorRT plugin"} <= set(
        roles
    )
    assert all(path.is_file() for role, path in roles.items() if "documentation" not in role)
    assert len(facts["cases"]) == len(set(facts["cases"])) > 20
    assert facts["tolerances"]["float64"]["maximum_error"] == 1e-12


def test_an_operator_of_traces_tells_why_it_has_no_more() -> None:
    result = run("op", "CausalAttention")
    assert "in traces only   the rewrite rules fuse_gqa and lower_attention replace it" in result.output
    assert len(json.loads(run("op", "CausalAttention", "--json").output)["pieces"]) == 2


def test_an_unknown_operator_lists_the_valid_ones() -> None:
    result = run("op", "TPAttention")
    assert isinstance(result.exception, OperatorError)
    assert "did you mean TPAAttention?" in str(result.exception)
    assert ", ".join(operators()) in str(result.exception)


def test_a_name_belongs_to_operators_only() -> None:
    result = run("some-checkpoint", "TPAAttention")
    assert result.exit_code == 2
    assert "only `inspect op` takes a NAME" in result.output
    result = run("op", "--template")
    assert result.exit_code == 2
    assert "has no chat template" in result.output


def test_loads_no_torch_nor_onnx() -> None:
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom edgekit.cli.inspect import command\n"
        "assert CliRunner().invoke(command, ['op', 'TPAAttention']).exit_code == 0\n"
        "print([m for m in ('torch', 'onnx', 'onnxruntime') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"
