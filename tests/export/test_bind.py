"""Every constant has a source, and every weight of the model a constant."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from edgekit.errors import ExportError
from edgekit.export.bind import bind_weights, checkpoint_weight
from edgekit.models.registry import WeightSource, model_on_meta, weight_map
from edgekit.rewrite.weights import Array, Weight
from tests.rewrite.tiny_graphs import CONTEXT, Forms


def pieces(forms: Forms, name: str = "llama") -> tuple[gs.Graph, dict[str, WeightSource], dict[str, Array]]:
    model = model_on_meta(forms.checkpoint(name).config, CONTEXT)
    tables = {table: values.numpy() for table, values in model.rope_tables().items()}
    return forms.traced(name).graph, weight_map(model), tables


def constants(graph: gs.Graph) -> dict[str, Weight]:
    return {name: tensor._values for name, tensor in graph.tensors().items() if isinstance(tensor, gs.Constant)}


def test_each_constant_reads_its_tensor(forms: Forms) -> None:
    graph, sources, tables = pieces(forms)
    checkpoint = forms.checkpoint("llama")
    assert bind_weights(graph, checkpoint, sources, tables, "float16") == len(sources) + len(tables)
    bound = constants(graph)
    for name, source in sources.items():
        assert bound[name].sources == (source.name,)
        assert np.array_equal(bound[name].load(), checkpoint.array(source.name).astype(np.float16))
    for name, values in tables.items():
        assert np.array_equal(bound[name].load(), values.astype(np.float16))


def test_transforms_are_applied(forms: Forms) -> None:
    _, sources, _ = pieces(forms, "gemma3_text")
    checkpoint = forms.checkpoint("gemma3_text")
    source = sources["model.norm.weight"]
    weight = checkpoint_weight(checkpoint, source)
    np.testing.assert_allclose(weight.load(), checkpoint.array(source.name) + 1)
    plain = checkpoint_weight(checkpoint, WeightSource(source.name, None))
    assert weight.key != plain.key
    assert np.array_equal(plain.load(), checkpoint.array(source.name))


@pytest.mark.parametrize("kind", ["weight", "table"])
def test_a_constant_without_a_source_is_an_error(forms: Forms, kind: str) -> None:
    graph, sources, tables = pieces(forms)
    name = "model.layers.1.mlp.up_proj.weight" if kind == "weight" else "rope.cos"
    del (sources if kind == "weight" else tables)[name]
    with pytest.raises(ExportError) as raised:
        bind_weights(graph, forms.checkpoint("llama"), sources, tables, "float32")
    assert f"'{name}'" in raised.value.fact
    assert "has no source" in raised.value.fact


def test_a_weight_that_the_graph_does_not_use_is_an_error(forms: Forms) -> None:
    graph, sources, tables = pieces(forms)
    sources["model.extra.weight"] = sources["model.norm.weight"]
    with pytest.raises(ExportError) as raised:
        bind_weights(graph, forms.checkpoint("llama"), sources, tables, "float32")
    assert raised.value.fact == "1 are not: model.extra.weight"
