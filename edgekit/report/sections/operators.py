"""Which operators the graph has, and in which forms its custom ones can run."""

from __future__ import annotations

from collections import Counter

from edgekit.bundle import Bundle
from edgekit.contract import FORM_JETPACK6
from edgekit.report.blocks import Block, Cell, Figure, Note, Section, Table, Text
from edgekit.report.numbers import count
from edgekit.report.source import Source
from edgekit.report.svg import Bar, Bars

ORDER = 70
TITLE = "Operators"
_MOST = 10
_DOMAINS = {
    "ai.onnx": "standard ONNX",
    "com.microsoft": "ONNX Runtime's own",
    "edgekit": "edgekit's custom operators",
    "trt": "TensorRT's own",
}


def section(source: Source) -> Section:
    """Custom operators with their forms, and the graph's nodes by domain."""
    manifest, graph = source.bundle.manifest, source.graph
    custom = {use.name: {"version": use.version, "nodes": use.nodes} for use in manifest.operators}
    blocks: list[Block] = [*_custom(source)]
    nodes: dict[str, int] = {}
    if graph is not None:
        nodes = {f"{domain}::{name}": number for (domain, name), number in graph.nodes.items()}
        blocks += [*_figure(nodes), _domains(graph.nodes)]
    else:
        blocks.append(Note("The graph's other operators need the package onnx: pip install 'edgekit[export]'."))
    total = f"{count(sum(nodes.values()), 'node')} of {count(len(nodes), 'operator')}. " if nodes else ""
    intro = total + (
        f"Custom operators: {', '.join(custom)}." if custom else "No custom operators: any runtime of its form runs it."
    )
    return Section("operators", TITLE, tuple(blocks), intro, data={"custom": custom, "nodes": nodes})


def _custom(source: Source) -> tuple[Block, ...]:
    bundle = source.bundle
    rows = tuple(_row(bundle, use.name, use.version, use.nodes) for use in bundle.manifest.operators)
    if not rows:
        return ()
    head = ("operator", "version", "nodes", "native, on the CPU", "ONNX functions", "CUDA kernel", "TensorRT plugin")
    table = Table("Custom operators, and the forms in which each can run", head, rows, (1, 2))
    bench = source.measurements.get("bench")
    ran = bench.document.get("session") if bench is not None else None
    return (table, Note(f"As measured, they ran so: {ran}.")) if isinstance(ran, str) else (table,)


def _row(bundle: Bundle, name: str, version: int, nodes: int) -> tuple[Text, ...]:
    bodies = bundle.manifest.form != FORM_JETPACK6
    forms = operator_forms(name)
    body: Text = Cell("in the graph", "good") if bodies else Cell("none: this form has plugins only")
    return (
        Cell(name, code=True),
        str(version),
        str(nodes),
        _has(forms["native"]),
        body,
        _has(forms["cuda"]),
        _has(forms["plugin"]),
    )


def operator_forms(name: str) -> dict[str, bool]:
    """Which forms this edgekit has the sources of; none for an operator it does not know."""
    from edgekit.ops.pieces import PLUGINS
    from edgekit.ops.registry import operators, stems

    stem = dict(zip(operators(), stems(), strict=True)).get(name)
    folder = PLUGINS / stem if stem is not None else None
    files = {"native": "cpu.cpp", "cuda": "kernel.cuh", "plugin": "plugin.cpp"}
    return {form: folder is not None and (folder / file).is_file() for form, file in files.items()}


def _has(present: bool) -> Cell:
    return Cell("available", "good") if present else Cell("none", "warn")


def _figure(nodes: dict[str, int]) -> tuple[Figure, ...]:
    if not nodes:
        return ()
    most = sorted(nodes.items(), key=lambda entry: -entry[1])
    bars = [Bar(name.removeprefix("ai.onnx::"), number, emphasis=name.startswith("edgekit::")) for name, number in most]
    shown, rest = bars[:_MOST], bars[_MOST:]
    if rest:
        shown.append(Bar(f"{count(len(rest), 'other')}", sum(bar.value for bar in rest)))
    return (Figure(Bars("Nodes of the graph", "", tuple(shown)), numbers=False),)


def _domains(nodes: dict[tuple[str, str], int]) -> Table:
    sums: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for (domain, _), number in nodes.items():
        sums[domain] += number
        kinds[domain] += 1
    rows = tuple(
        (Cell(domain, code=True, note=_DOMAINS.get(domain, "")), f"{kinds[domain]:,}", f"{number:,}")
        for domain, number in sums.most_common()
    )
    return Table("By domain", ("domain", "operators", "nodes"), rows, (1, 2))
