"""Writes `plugins/<stem>/generated.h` of every operator that has native code: `python -m edgekit.ops.generate`.

The header holds what native code must not repeat by hand: names, the order of conditional operands, attributes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from edgekit.files import atomic_write
from edgekit.ops.registry import operator, stems
from edgekit.ops.spec import Operand, OpSpec

HEADER = "generated.h"

_KINDS = {"float": ("float", "kFloat"), "int": ("std::int64_t", "kInt"), "string": ("const char*", "kString")}
_DTYPES = {"float32": "kFloat32", "float16": "kFloat16", "bfloat16": "kBFloat16", "float64": "kFloat64"}


def header(spec: OpSpec) -> str:
    """The text of `generated.h`: C++17, no dependencies, for g++ and nvcc."""
    guard = f"EDGEKIT_{spec.stem.upper()}_GENERATED_H"
    variants = spec.variants
    flags = "".join(f", bool {name}" for name in variants).removeprefix(", ")
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
    int32 = ", ".join("true" if operand.dtype == "int32" else "false" for operand in operands)
    generic = ", ".join("true" if operand.dtype == "T" else "false" for operand in operands)
    arguments = "".join(f", {name}" for name in variants).removeprefix(", ")
    unused = flags.replace("bool ", "[[maybe_unused]] bool ")
    comma, low = (", " if variants else ""), kind.lower()
    lines = [f"enum class {kind} {{ {names} }};"]
    lines += [f"//   {operand.name} {_forms(operand)}: {operand.meaning}" for operand in operands]
    lines += [
        f"inline constexpr int k{kind}Limit = {len(operands)};",
        f"inline constexpr const char* k{kind}Names[] = {{{text}}};",
        "// Whether the element type is the graph's; whether it is int32; the others are int64.",
        f"inline constexpr bool k{kind}Generic[] = {{{generic}}};",
        f"inline constexpr bool k{kind}Int32[] = {{{int32}}};",
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
    unused = flags.replace("bool ", "[[maybe_unused]] bool ")
    lines = [
        "// Axes by letter, separated by commas; null where the operand does not exist.",
        f"constexpr const char* {low}_axes({kind} {low}{comma}{unused}) {{",
        f"  switch ({low}) {{",
    ]
    for operand in operands:
        value = ""
        for form in operand.forms:
            condition = " && ".join(name if on else f"!{name}" for name, on in form.when)
            value += f'{condition} ? "{",".join(form.dims)}" : ' if condition else f'"{",".join(form.dims)}"'
        lines.append(
            f"    case {kind}::k{camel(operand.name)}: return {value}{'nullptr' if operand.forms[-1].when else ''};"
        )
    return [*lines, "  }", "  return nullptr;", "}", ""]


def _forms(operand: Operand) -> str:
    return " or ".join(
        f"[{', '.join(form.dims)}]" + "".join(f" if {name}={value}" for name, value in form.when)
        for form in operand.forms
    )


def _condition(operand: Operand) -> str:
    """A C++ expression in the variant flags."""
    terms = []
    for form in operand.forms:
        if not form.when:
            return "true"
        terms.append(" && ".join(name if value else f"!{name}" for name, value in form.when))
    if len(operand.forms) == 2 and {v for form in operand.forms for _, v in form.when} == {0, 1}:
        return "true"
    return " || ".join(f"({term})" for term in terms) if len(terms) > 1 else terms[0]


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
