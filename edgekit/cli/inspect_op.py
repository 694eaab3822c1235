"""What `edgekit inspect op` prints: the operators, or all pieces of one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgekit.ops.spec import Operand, OpSpec


def inspect_operators(as_json: bool) -> None:
    """List the operators."""
    from edgekit.ops.registry import operator, operators

    specs = [operator(name) for name in operators()]
    if as_json:
        click.echo(json.dumps([{"name": s.name, "domain": s.domain, "summary": s.summary} for s in specs], indent=2))
        return
    width = max(len(spec.name) for spec in specs)
    for spec in specs:
        note = " (in traces only)" if spec.trace_only else ""
        click.echo(f"{spec.name:<{width}}  {spec.summary}{note}")


def inspect_operator(name: str, as_json: bool) -> None:
    """Show one operator with the paths of all of its pieces; unknown names list the valid ones."""
    from edgekit.ops.registry import operator

    facts = operator_facts(operator(name))
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        _print(facts)


def operator_facts(spec: OpSpec) -> dict[str, Any]:
    """What is known about an operator, as JSON can hold it."""
    from edgekit.ops.pieces import defects, pieces

    facts: dict[str, Any] = {
        "name": spec.name,
        "domain": spec.domain,
        "version": spec.version,
        "summary": spec.summary,
        "source": spec.source,
        "dtypes": list(spec.dtypes),
        "axes": {axis.name: axis.meaning for axis in spec.axes},
        "inputs": [_operand(operand) for operand in spec.inputs],
        "outputs": [_operand(operand) for operand in spec.outputs],
        "attributes": [
            {"name": a.name, "kind": a.kind, "meaning": a.meaning, "fixed": a.value} for a in spec.attributes
        ],
        "variants": list(spec.variants),
        "tolerances": {
            dtype: {"one_minus_cosine": t.cosine, "maximum_error": t.maximum} for dtype, t in spec.tolerances.items()
        },
        "pieces": [{"role": p.role, "path": str(p.path), "present": p.path.is_file()} for p in pieces(spec)],
        "defects": defects(spec),
        "trace_only": spec.trace_only or None,
    }
    if not spec.trace_only:
        facts["cases"] = [case.name for case in spec.cases()]
    return facts


def _operand(operand: Operand) -> dict[str, Any]:
    return {
        "name": operand.name,
        "dtype": operand.dtype,
        "meaning": operand.meaning,
        "forms": [{"dims": list(form.dims), "when": dict(form.when)} for form in operand.forms],
    }


def _print(facts: dict[str, Any]) -> None:
    rows = [
        ("operator", f"{facts['domain']}::{facts['name']}, version {facts['version']}"),
        ("", facts["summary"]),
        ("source", facts["source"]),
    ]
    if facts["trace_only"]:
        rows.append(("in traces only", facts["trace_only"]))
    rows.append(("element types T", ", ".join(facts["dtypes"])))
    rows += _labelled("axes", [f"{name}  {meaning}" for name, meaning in facts["axes"].items()])
    for what in ("inputs", "outputs"):
        rows += _labelled(what, [_operand_line(operand) for operand in facts[what]])
    rows += _labelled("attributes", [_attribute_line(attribute) for attribute in facts["attributes"]])
    if facts["variants"]:
        count = 2 ** len(facts["variants"])
        rows.append(("variants", f"{count}, by {', '.join(facts['variants'])}; one function body each"))
    tolerances = [
        f"{dtype}: 1 - cosine at most {t['one_minus_cosine']:g}, error at most {t['maximum_error']:g} of the largest"
        for dtype, t in facts["tolerances"].items()
    ]
    rows += _labelled("tolerances", tolerances)
    if "cases" in facts:
        rows.append(("cases", f"{len(facts['cases'])} (--json lists them)"))
    rows += _labelled("pieces", [f"{p['role']}: {p['path']}" for p in facts["pieces"]])
    rows += _labelled("defects", facts["defects"])
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        click.echo(f"{label:<{width}}  {value}".rstrip())


def _labelled(label: str, lines: list[str]) -> list[tuple[str, str]]:
    return [(label if index == 0 else "", line) for index, line in enumerate(lines)]


def _operand_line(operand: dict[str, Any]) -> str:
    forms = []
    for form in operand["forms"]:
        when = ", ".join(f"{name}={value}" for name, value in form["when"].items())
        forms.append(f"[{', '.join(form['dims'])}]" + (f" if {when}" if when else ""))
    return f"{operand['name']} {operand['dtype']} {' or '.join(forms)}: {operand['meaning']}"


def _attribute_line(attribute: dict[str, Any]) -> str:
    fixed = "" if attribute["fixed"] is None else f" = {attribute['fixed']!r}"
    return f"{attribute['name']} {attribute['kind']}{fixed}: {attribute['meaning']}"
