"""What an operator is, as data: everything that its forms share.

An operator has one stem. Its specification is `edgekit/ops/specs/<stem>.py`; the pieces that need heavier packages are
found by the same stem: the PyTorch reference in `edgekit/ops/<stem>.py`, the ONNX function body in
`edgekit/ops/functions/<stem>.py`, the cases in `edgekit/ops/cases/<stem>.py`, native code in `plugins/<stem>/`.
This file needs the standard library only, so that rewriting and `edgekit inspect op` load no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from itertools import product
from typing import TYPE_CHECKING, Any

from edgekit.errors import EdgekitError
from edgekit.ops.shapes import Sizes, bind, evaluate

if TYPE_CHECKING:
    import numpy as np
    import onnx

#: Element type of the operands that follow the graph's type; others name theirs ("int64", "int32", "float16").
GENERIC = "T"
#: Attribute values by name.
Attributes = Mapping[str, Any]


class OperatorError(EdgekitError):
    """An operator is unknown, or was given operands that its specification does not allow."""


@dataclass(frozen=True)
class Axis:
    """A size that operands share, by its letter."""

    name: str
    meaning: str


@dataclass(frozen=True)
class Attribute:
    """An attribute of the node. All are written out on every node: defaults of a function do not reach a kernel.

    Attributes:
        kind: "float", "int" or "string".
        variant: decides which operands exist, their axes or their types; one function body per combination.
        value: what is written where the caller has no say; None where the caller must give it.
        axis: the axis whose size the attribute states, if it states one.
        choices: values that a variant may have.
    """

    name: str
    kind: str
    meaning: str
    variant: bool = False
    value: str | int | float | None = None
    axis: str = ""
    choices: tuple[int, ...] = (0, 1)


@dataclass(frozen=True)
class Form:
    """Axes of an operand, and the values (one, or any of several) of variant attributes under which it has them.

    Attributes:
        dtype: element type in this form; empty for the operand's own.
    """

    dims: tuple[str, ...]
    when: tuple[tuple[str, int | tuple[int, ...]], ...] = ()
    dtype: str = ""

    def holds(self, attributes: Attributes) -> bool:
        return all(attributes[name] in choices(value) for name, value in self.when)


def choices(value: int | tuple[int, ...]) -> tuple[int, ...]:
    """The values that a condition of a form allows."""
    return value if isinstance(value, tuple) else (value,)


@dataclass(frozen=True)
class Operand:
    """An input or output. It exists if one of its forms does; one that does not is left out, never an empty name.

    Attributes:
        past: for a cache output, the input that holds its older rows.
    """

    name: str
    meaning: str
    forms: tuple[Form, ...]
    dtype: str = GENERIC
    past: str = ""

    def form(self, attributes: Attributes) -> Form | None:
        """The form under these attributes; None where the operand does not exist."""
        return next((form for form in self.forms if form.holds(attributes)), None)

    def dtype_under(self, attributes: Attributes) -> str:
        """The element type under these attributes, GENERIC for the graph's."""
        form = self.form(attributes)
        return form.dtype or self.dtype if form else self.dtype


@dataclass(frozen=True)
class Tolerance:
    """How far a form may be from the float64 reference on the same (rounded) inputs.

    Attributes:
        cosine: largest 1 - cosine similarity over all elements of an output.
        maximum: largest absolute error, in units of the largest magnitude in the expected output.
    """

    cosine: float
    maximum: float


@dataclass(frozen=True)
class Case:
    """One set of operands on which every form is compared with the reference.

    Attributes:
        name: unique within the operator; says what is odd about it.
        attributes: all attribute values.
        inputs: makes the operands in a dtype ("float32", ...); the same values at each call.
        in_place: past operands are buffers with room for the new rows, and the presents are these buffers.
    """

    name: str
    attributes: dict[str, Any]
    inputs: Callable[[str], dict[str, np.ndarray]]
    in_place: bool = False


@dataclass(frozen=True)
class OpSpec:
    """An operator.

    Attributes:
        name, domain, version: of the ONNX node.
        stem: of the files.
        summary: one line.
        source: paper, section and equation, or what defines the operator.
        axes, inputs, outputs, attributes: the signature, in order.
        dtypes: element types that GENERIC stands for.
        tolerances: by dtype.
        derive: sizes that follow from those of the inputs, such as the length of a present; may raise OperatorError.
        trace_only: why the operator exists in traces only and has neither function body nor native code; else "".
        possible: whether the choices of variant attributes go together.
        mixes: whether a graph may have nodes of several variants, whose bodies ONNX tells apart by overload.
    """

    name: str
    version: int
    stem: str
    summary: str
    source: str
    axes: tuple[Axis, ...]
    inputs: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    attributes: tuple[Attribute, ...]
    dtypes: tuple[str, ...]
    tolerances: Mapping[str, Tolerance] = field(default_factory=dict)
    derive: Callable[[Sizes], Sizes] = dict
    trace_only: str = ""
    domain: str = "edgekit"
    possible: Callable[[Attributes], bool] = lambda attributes: True
    mixes: bool = False

    @property
    def variants(self) -> tuple[str, ...]:
        """Names of the attributes that decide which operands exist."""
        return tuple(attribute.name for attribute in self.attributes if attribute.variant)

    def combinations(self) -> list[dict[str, int]]:
        """The values of variant attributes that go together."""
        choices = [attribute.choices for attribute in self.attributes if attribute.variant]
        found = (dict(zip(self.variants, values, strict=True)) for values in product(*choices))
        return [values for values in found if self.possible(values)]

    def overload(self, attributes: Attributes) -> str:
        """The name of a variant among the function bodies of a graph that has several."""
        return "_".join(f"{name}{attributes[name]}" for name in self.variants)

    def complete(self, attributes: Attributes) -> dict[str, Any]:
        """All attributes in order, those that the caller leaves open at their fixed value.

        Raises:
            OperatorError: one is missing or unknown.
        """
        names = [attribute.name for attribute in self.attributes]
        full = {a.name: attributes.get(a.name, a.value) for a in self.attributes}
        missing = [name for name, value in full.items() if value is None]
        unknown = [name for name in attributes if name not in full]
        if missing or unknown:
            raise OperatorError(
                f"{self.domain}::{self.name} has the attributes {', '.join(names)}",
                f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}",
            )
        return full

    def active_inputs(self, attributes: Attributes) -> list[Operand]:
        """The inputs that exist under these attributes, in order."""
        return [operand for operand in self.inputs if operand.form(attributes)]

    def active_outputs(self, attributes: Attributes) -> list[Operand]:
        """The outputs that exist under these attributes, in order."""
        return [operand for operand in self.outputs if operand.form(attributes)]

    def output_shapes(
        self, attributes: Attributes, inputs: Mapping[str, tuple[int, ...]]
    ) -> dict[str, tuple[int, ...]]:
        """Shapes of the outputs from those of the inputs.

        Raises:
            OperatorError: inputs are missing, or their sizes contradict each other.
        """
        sizes: Sizes = {a.axis: int(attributes[a.name]) for a in self.attributes if a.axis}
        forms = {operand.name: operand.form(attributes) for operand in self.active_inputs(attributes)}
        if set(forms) != set(inputs):
            raise OperatorError(f"{self.name} takes here: {', '.join(forms)}", f"given: {', '.join(inputs)}")
        dims = {name: form.dims for name, form in forms.items() if form is not None}
        try:
            bind(sizes, dims, inputs)
            sizes |= self.derive(sizes)
            found = {}
            for operand in self.active_outputs(attributes):
                form = operand.form(attributes)
                assert form is not None
                found[operand.name] = tuple(evaluate(dim, sizes) for dim in form.dims)
        except ValueError as error:
            raise OperatorError(f"sizes of the operands of {self.name} must agree", str(error)) from error
        return found

    def reference(self, attributes: Attributes, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs (torch.Tensor by name) by the plain reference, which appends to caches by making longer ones."""
        result: dict[str, Any] = import_module(f"edgekit.ops.{self.stem}").reference(attributes, inputs)
        return result

    def function(self, opset: int, attributes: Attributes, dtype: str = "float32") -> onnx.FunctionProto:
        """The operator spelled in standard ONNX operators.

        Args:
            opset: of the default domain, that of the graph; 18 or later.
            attributes: the variant; other values are read off the node.
            dtype: element type of the graph; "float16" and "bfloat16" bodies compute in float32.
        """
        made: onnx.FunctionProto = import_module(f"edgekit.ops.functions.{self.stem}").function(
            self, opset, attributes, dtype
        )
        return made

    def cases(self) -> list[Case]:
        """The cases on which every form is compared with the reference."""
        found: list[Case] = import_module(f"edgekit.ops.cases.{self.stem}").cases()
        return found
