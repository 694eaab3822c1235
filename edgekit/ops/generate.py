"""Writes `plugins/<stem>/generated.h` of every operator that has native code: `python -m edgekit.ops.generate`.

The header holds what native code must not repeat by hand: names, the order of conditional operands, attributes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edgekit.files import atomic_write
from edgekit.ops.registry import operator, stems
from edgekit.ops.spec import Form, Operand, OpSpec, choices

HEADER = "generated.h"

_KINDS = {"float": ("float", "kFloat"), "int": ("std::int64_t", "kInt"), "string": ("const char*", "kString")}
_TYPES = {"T": "kGeneric", "int64": "kInt64", "int32": "kInt32", "float16": "kFloat16"}
_DTYPES = {"float32": "kFloat32", "float16": "kFloat16", "bfloat16": "kBFloat16", "float64": "kFloat64"}


def header(spec: OpSpec) -> str:
    """The text of `generated.h`: C++17, no dependencies, for g++ and nvcc."""
    guard = f"EDGEKIT_{spec.stem.upper()}_GENERATED_H"
    variants = spec.variants
    kinds = {a.name: "bool" if a.choices == (0, 1) else "int" for a in spec.attributes}
    flags = "".join(f", {kinds[name]} {name}" for name in variants).removeprefix(", ")
    lines = [
        "// Generated from edgekit/ops/specs by `python -m edgekit.ops.generate`. Do not edit.",
        f"#ifndef {guard}",
        f"#define {guard}",
        "#include <cstdint>",
        "",
        f"namespace edgekit::{spec.stem} {{",
        "",
        f"// {spec.summary}",
        f'inline constexpr char kName[] = "{spec.name}";',
        f'inline constexpr char kDomain[] = "{spec.domain}";',
        f"inline constexpr int kVersion = {spec.version};",
        "",
        "enum class Kind { kFloat, kInt, kString };",
        "enum class Type { kGeneric, kInt64, kInt32, kFloat16 };  // kGeneric: that of the graph",
        "enum class DType { kFloat32, kFloat16, kBFloat16, kFloat64 };",
        f"inline constexpr DType kDTypes[] = {{{', '.join(f'DType::{_DTYPES[d]}' for d in spec.dtypes)}}};",
        "",
        *_attributes(spec),
        *_operands("Input", spec.inputs, variants, flags),
        *_operands("Output", spec.outputs, variants, flags),
        *_axes("Input", spec.inputs, flags),
        *_axes("Output", spec.outputs, flags),
        *_pasts(spec),
        f"}}  // namespace edgekit::{spec.stem}",
        "",
        f"#endif  // {guard}",
        "",
    ]
    return "\n".join(lines)


def _attributes(spec: OpSpec) -> list[str]:
    lines = ["// Every attribute is written on every node.", "struct Attributes {"]
    for attribute in spec.attributes:
        ctype = _KINDS[attribute.kind][0]
        value = attribute.value if attribute.value is not None else 0
        text = f'"{value}"' if attribute.kind == "string" else f"{float(value)}f" if ctype == "float" else str(value)
        lines.append(f"  {ctype} {attribute.name} = {text};  // {attribute.meaning}")
    rows = ", ".join(f'{{"{a.name}", Kind::{_KINDS[a.kind][1]}}}' for a in spec.attributes)
    return [
        *lines,
        "};",
        "struct AttributeField { const char* name; Kind kind; };",
        f"inline constexpr AttributeField kAttributes[] = {{{rows}}};",
        f"inline constexpr int kAttributeCount = {len(spec.attributes)};",
        "// visit(name, value) for each attribute; `A` is Attributes or const Attributes.",
        "template <class A, class Visit>",
        "void visit_attributes(A& attributes, Visit&& visit) {",
        *(f'  visit("{a.name}", attributes.{a.name});' for a in spec.attributes),
        "}",
        "",
    ]


def _operands(kind: str, operands: tuple[Operand, ...], variants: tuple[str, ...], flags: str) -> list[str]:
    """The enum, the names, the number under given flags, and the index among those that exist."""
    names = ", ".join(f"k{camel(operand.name)}" for operand in operands)
    text = ", ".join(f'"{operand.name}"' for operand in operands)
    arguments = "".join(f", {name}" for name in variants).removeprefix(", ")
    unused = _unused(flags)
    comma, low = (", " if variants else ""), kind.lower()
    lines = [f"enum class {kind} {{ {names} }};"]
    lines += [f"//   {operand.name} {_forms(operand)}: {operand.meaning}" for operand in operands]
    lines += [
        f"inline constexpr int k{kind}Limit = {len(operands)};",
        f"inline constexpr const char* k{kind}Names[] = {{{text}}};",
        f"constexpr bool has_{low}({kind} {low}{comma}{unused}) {{",
        f"  switch ({low}) {{",
    ]
    for operand in operands:
        lines.append(f"    case {kind}::k{camel(operand.name)}: return {_condition(operand)};")
    lines += [
        "  }",
        "  return false;",
        "}",
        f"constexpr int {low}_count({flags}) {{",
        "  int count = 0;",
        f"  for (int i = 0; i < k{kind}Limit; ++i)",
        f"    count += has_{low}(static_cast<{kind}>(i){comma}{arguments}) ? 1 : 0;",
        "  return count;",
        "}",
        f"// Position among the {low}s that exist under these flags; -1 where it does not.",
        f"constexpr int {low}_index({kind} {low}{comma}{flags}) {{",
        f"  if (!has_{low}({low}{comma}{arguments})) return -1;",
        "  int index = 0;",
        f"  for (int i = 0; i < static_cast<int>({low}); ++i)",
        f"    index += has_{low}(static_cast<{kind}>(i){comma}{arguments}) ? 1 : 0;",
        "  return index;",
        "}",
        "",
    ]
    return lines


def _axes(kind: str, operands: tuple[Operand, ...], flags: str) -> list[str]:
    """The letters of an operand's axes under given flags."""
    low, comma = kind.lower(), ", " if flags else ""
    unused = _unused(flags)
    lines = [
        "// Axes by letter, separated by commas; null where the operand does not exist.",
        f"constexpr const char* {low}_axes({kind} {low}{comma}{unused}) {{",
        f"  switch ({low}) {{",
    ]
    for operand in operands:
        lines += _cases(f"{kind}::k{camel(operand.name)}", operand, lambda form: f'"{",".join(form.dims)}"', "nullptr")
    lines += ["  }", "  return nullptr;", "}", ""]
    lines += [f"constexpr Type {low}_type({kind} {low}{comma}{unused}) {{", f"  switch ({low}) {{"]
    for operand in operands:
        lines += _cases(
            f"{kind}::k{camel(operand.name)}",
            operand,
            partial(_type, operand.dtype),
            f"Type::{_TYPES[operand.dtype]}",
        )
    return [*lines, "  }", "  return Type::kGeneric;", "}", ""]


def _type(own: str, form: Form) -> str:
    return f"Type::{_TYPES[form.dtype or own]}"


def _cases(place: str, operand: Operand, value: Callable[[Form], str], otherwise: str) -> list[str]:
    """The case of a switch that gives something of the form that holds; forms that give the same are one."""
    if all(value(form) == otherwise for form in operand.forms):
        return [f"    case {place}: return {otherwise};"]
    if not operand.forms[0].when:
        return [f"    case {place}: return {value(operand.forms[0])};"]
    conditions: dict[str, list[str]] = {}
    for form in operand.forms:
        conditions.setdefault(value(form), []).append(_holds(form))
    if len(operand.forms) <= 2:
        chain = "".join(f"{_either(terms)} ? {text} : " for text, terms in conditions.items())
        return [f"    case {place}: return {chain}{otherwise};"]
    lines = [f"    case {place}:"]
    for text, terms in conditions.items():
        if text != otherwise:
            lines.append(f"      if ({_either(terms)}) return {text};")
    return [*lines, f"      return {otherwise};"]


def _either(terms: list[str], *, inner: bool = False) -> str:
    if len(terms) == 1:
        return terms[0]
    return f"({' || '.join(terms)})" if inner else " || ".join(f"({term})" for term in terms)


def _holds(form: Form) -> str:
    """A C++ expression in the variant flags, which are `bool` or, with more than two choices, `int`."""
    return " && ".join(_either([f"{name} == {one}" for one in choices(value)], inner=True) for name, value in form.when)


def _unused(flags: str) -> str:
    return ", ".join(f"[[maybe_unused]] {flag}" for flag in flags.split(", ")) if flags else ""


def _forms(operand: Operand) -> str:
    return " or ".join(
        f"[{', '.join(form.dims)}]"
        + "".join(f" if {name}={'/'.join(map(str, choices(value)))}" for name, value in form.when)
        for form in operand.forms
    )


def _condition(operand: Operand) -> str:
    """A C++ expression in the variant flags."""
    if not all(form.when for form in operand.forms):
        return "true"
    terms = [_holds(form) for form in operand.forms]
    values = {value for form in operand.forms for _, several in form.when for value in choices(several)}
    if len(operand.forms) == 2 and values == {0, 1}:
        return "true"
    return _either(terms)


def _pasts(spec: OpSpec) -> list[str]:
    """For TensorRT's aliased operands: which input an output continues."""
    lines = [
        "// The input that an output continues, as an index into Input; -1 for none.",
        "constexpr int past_of(Output output) {",
        "  switch (output) {",
    ]
    for operand in spec.outputs:
        value = f"static_cast<int>(Input::k{camel(operand.past)})" if operand.past else "-1"
        lines.append(f"    case Output::k{camel(operand.name)}: return {value};")
    return [*lines, "  }", "  return -1;", "}", ""]


def camel(name: str) -> str:
    """past_b_k → PastBK."""
    return "".join(part.capitalize() for part in name.split("_"))


def main() -> None:
    for spec in map(operator, stems()):
        if not spec.trace_only:
            path = Path(__file__).parents[2] / "plugins" / spec.stem / HEADER
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, header(spec))
            sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
