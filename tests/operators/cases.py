"""The cases: for each row of the dictionary, graphs in ONNX text with the groups that must be found in them.

Sizes are letters, so a case holds for many shapes: `test_groups.py` takes the first size of each letter,
`test_rules_by_number.py` random ones. Groups are written `size: members | dependents`, each axis as `tensor.axis`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import graphs
import numpy as np
import onnx

# The first size of each letter is the one of the plain test.
LETTERS = {
    "c": (4, 3, 5), "o": (3, 4), "i": (3, 4), "s": (5, 4), "t": (2, 3), "g": (2, 3), "d": (3, 2), "e": (2, 3),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One graph around an operator."""

    operator: str
    text: str
    groups: str
    tensors: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def letters(self, generator: np.random.Generator | None = None) -> dict[str, int]:
        """A size for each letter: the first one, or a random one."""
        choices = {**LETTERS, **self.sizes}
        return {name: int(generator.choice(few)) if generator else few[0] for name, few in choices.items()}

    def model(self, letters: Mapping[str, int], seed: int = 0) -> onnx.ModelProto:
        """The graph at these sizes."""
        return graphs.build(self.text, seed=seed, **{"opset": 20, **self.options}, **letters, **self.tensors)

    def __str__(self) -> str:
        return f"{self.operator}-{self.label}" if self.label else self.operator


def case(operator: str, text: str, groups: str, label: str = "", **given: Any) -> Case:
    """A case; keywords are sizes (tuples), options of `graphs.build`, and tensors."""
    sizes = {name: value for name, value in given.items() if isinstance(value, tuple)}
    options = {name: given[name] for name in ("opset", "returns", "dynamic") if name in given}
    tensors = {name: value for name, value in given.items() if name not in sizes and name not in options}
    return Case(operator, text, groups, tensors, label, sizes, options)


# -- around the operator: a linear layer before it, and one after it ------------------------------------------------

LINEAR = {"x": "N 3", "w": "3 c", "b": "c", "v": "c 2"}
IMAGE = {"x": "N 3 s s", "w": "c 3 1 1", "b": "c", "v": "2 c 1 1"}
SEQUENCE = {"x": "N 3 s", "w": "c 3 1", "b": "c", "v": "2 c 1"}
FREE = "c: b.0 w.1 | v.0"
FREE_CHANNELS = "c: b.0 w.0 | v.1"


def linear(operator: str, body: str, groups: str = FREE, label: str = "", **given: Any) -> Case:
    """h[N, c] -> body -> y[N, c]."""
    last = "Gemm" if given.get("opset", 20) > 10 else "MatMul"  # an old Gemm must have a bias
    return case(operator, f"h = Gemm (x, w, b)\n{body}\nz = {last} (y, v)", groups, label, **{**LINEAR, **given})


def image(operator: str, body: str, groups: str = FREE_CHANNELS, label: str = "", **given: Any) -> Case:
    """h[N, c, s, s] -> body -> y[N, c, ...]."""
    return case(operator, f"h = Conv (x, w, b)\n{body}\nz = Conv (y, v)", groups, label, **{**IMAGE, **given})


def sequence(operator: str, body: str, groups: str = FREE_CHANNELS, label: str = "", **given: Any) -> Case:
    """h[N, c, s] -> body -> y[N, c, ...]."""
    return case(operator, f"h = Conv (x, w, b)\n{body}\nz = Conv (y, v)", groups, label, **{**SEQUENCE, **given})


# -- elementwise ------------------------------------------------------------------------------------------------------

_PLAIN = [
    "Abs",
    "Asinh",
    "Atan",
    "Ceil",
    "Cos",
    "Cosh",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "Mish",
    "Neg",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Tanh",
    "ThresholdedRelu",
    "Celu",
    "com.microsoft.Gelu",
    "com.microsoft.QuickGelu",
]
_PREPARED = {  # operators that are not defined everywhere: what makes their input
    "Acos": "Tanh (h)", "Asin": "Tanh (h)", "Atanh": "Tanh (h)", "Tan": "Tanh (h)", "Sqrt": "Abs (h)",
    "Acosh": "Cosh (h)", "Log": "Cosh (h)", "Reciprocal": "Cosh (h)",
}  # fmt: skip
_ATTRIBUTES = {
    "Celu": "<alpha = 0.7>", "Elu": "<alpha = 0.7>", "Selu": "<alpha = 1.5, gamma = 1.2>",
    "LeakyRelu": "<alpha = 0.2>", "HardSigmoid": "<alpha = 0.3, beta = 0.4>", "Shrink": "<bias = 0.2, lambd = 0.3>",
    "ThresholdedRelu": "<alpha = 0.4>",
}  # fmt: skip
_SHIFTED = ("Relu", "Sigmoid", "Tanh", "Exp", "Softplus", "LeakyRelu", "Elu", "Selu", "Celu", "Shrink", "HardSwish",
            "ThresholdedRelu", "Gelu", "com.microsoft.QuickGelu", "Mish", "HardSigmoid", "Round", "Floor", "Ceil",
            "Softsign", "Neg", "Erf", "Sign")  # fmt: skip


def _elementwise() -> Iterator[Case]:
    for name in _PLAIN:
        yield linear(name, f"y = {name} (h)")
    for name, attributes in _ATTRIBUTES.items():
        yield linear(name, f"y = {name} {attributes} (h)", label="attributes")
    for name, before in _PREPARED.items():
        yield linear(name, f"p = {before}\ny = {name} (p)")
    for name in _SHIFTED:  # a constant other than 0 arrives, above and below
        for shift in (-0.75, 0.8):
            yield linear(name, f"p = Add (h, k)\ny = {name} (p)", label=f"at {shift:g}", k=shift)
    for name in ("Log", "Reciprocal"):  # infinite where the group is zero, and infinity times zero is not zero
        yield linear(name, f"p = Abs (h)\ny = {name} (p)", "", "infinite")
        yield linear(name, f"p = Abs (h)\nq = {name} (p)\ny = Mul (q, m)", "", "infinite, times zero", m="c")
    yield linear("Gelu", 'p = Add (h, k)\ny = Gelu <approximate = "tanh"> (p)', label="tanh", k=0.8)
    yield linear("Swish", "p = Add (h, k)\ny = Swish <alpha = 1.3> (p)", opset=24, k=0.8)
    yield linear("Cast", "p = Cast <to = 11> (h)\ny = Cast <to = 1> (p)")
    yield linear("Cast", "q = Add (h, k)\np = Cast <to = 7> (q)\ny = Cast <to = 1> (p)", label="rounds", k=1.6)
    yield linear("CastLike", "y = CastLike (h, k)", k=1.0)
    yield linear("CastLike", "q = Add (h, r)\np = CastLike (q, k)\ny = Cast <to = 1> (p)", label="rounds", r=1.6, k=[7])
    yield linear("Not", "p = Greater (h, zero)\nq = Not (p)\ny = Cast <to = 1> (q)", zero=0.0)
    yield linear("IsNaN", "q = IsNaN (h)\nf = Cast <to = 1> (q)\ny = Add (f, h)")
    yield linear("IsInf", "q = IsInf (h)\nf = Cast <to = 1> (q)\ny = Add (f, h)")
    yield linear("BitwiseNot", "p = Cast <to = 6> (h)\nq = BitwiseNot (p)\ny = Cast <to = 1> (q)", "")
    yield linear("Clip", "y = Clip (h, low, high)", low=-0.5, high=0.5)
    yield linear("Clip", "y = Clip (h, low)", label="above zero", low=0.3)
    yield linear("Clip", "y = Clip (h, , high)", label="below zero", high=-0.3)
    yield linear("Clip", "y = Clip <min = 0.2, max = 1.0> (h)", label="attributes", opset=9)
    yield linear("Clip", "y = Clip (h, x_low)", "", label="computed limit", x_low="")
    yield linear("Dropout", "y = Dropout (h)")
    yield linear(
        "Dropout", "d, mask = Dropout (h, ratio)\nk = Cast <to = 1> (mask)\ny = Mul (d, k)", label="mask", ratio=0.5
    )
    yield linear("PRelu", "y = PRelu (h, slope)", "c: b.0 w.1 | slope.0 v.0", slope="c")
    yield linear("PRelu", "p = Add (h, k)\ny = PRelu (p, slope)", "", "below", slope="c", k=-0.5)
    yield linear("PRelu", "y = PRelu (h, slope)", label="one slope", slope="1")


# Two operands: two layers; a layer and a weight; a layer and something that nobody can prune.
TWO = "c: b.0 u.1 w.1 | v.0"
PAIR = "h = Gemm (x, w, b)\nk = Gemm (x, u)"


def _pair(operator: str, body: str, groups: str = TWO, label: str = "", **given: Any) -> Case:
    return case(operator, f"{PAIR}\n{body}\nz = Gemm (y, v)", groups, label, **{**LINEAR, "u": "3 c", **given})


def _binary() -> Iterator[Case]:
    for name in ("Add", "Sub", "Mul", "Max", "Min", "Sum", "Mean"):
        yield _pair(name, f"y = {name} (h, k)", label="two layers")
        yield linear(name, f"y = {name} (h, q)", "c: b.0 q.0 w.1 | v.0", "weight", q="c")
        yield linear(name, f"y = {name} (q, h)", label="scalar", q=0.7)
        yield linear(name, f"y = {name} (h, q)", label="one for all", q="1 1")
    for name in ("Add", "Sub", "Max", "Min", "Mean"):
        yield linear(name, f"y = {name} (h, x_other)", "", "input", x_other="N 1")
        yield linear(name, f"y = {name} (h, x_other)", "", "input of all channels", x_other="N c")
    yield linear("Mul", "y = Mul (h, x_other)", label="input", x_other="N 1")
    yield linear("Mul", "y = Mul (h, x_other)", "", "input of all channels", x_other="N c")
    yield linear("Sum", "y = Sum (h, q, h)", "c: b.0 q.0 w.1 | v.0", "three", q="c")
    yield linear("Mean", "p = Add (h, one)\ny = Mean (p, q, h)", "c: b.0 q.0 w.1 | v.0", "three", q="c", one=0.5)
    yield linear("Max", "p = Add (h, one)\ny = Max (p, q)", "c: b.0 q.0 w.1 | v.0", "at 0.5", q="c", one=0.5)
    yield linear("Min", "y = Min (h)", label="one")
    yield case(
        "Add", "h = Conv (x, w)\nk = Conv (x, u)\ny = Add (h, k)\nz = Conv (y, v)", "c: u.0 w.0 | v.1", "images",
        **{**IMAGE, "u": "c 3 1 1"},
    )  # fmt: skip
    yield case(
        "Mul", """
        h = Conv (x, w, b)
        p = GlobalAveragePool (h)
        q = Conv (p, u)
        r = Sigmoid (q)
        y = Mul (h, r)
        z = Conv <pads = [1, 1, 1, 1]> (y, v)""",
        "c: b.0 u.0 w.0 | u.1 v.1", "gate", **{**IMAGE, "u": "c c 1 1", "v": "2 c 3 3"},
    )  # fmt: skip
    for name in ("Div", "Pow", "Mod"):
        fmod = " <fmod = 1>" if name == "Mod" else ""
        yield _pair(name, f"p = Abs (h)\nq = Cosh (k)\ny = {name}{fmod} (p, q)", label="two layers")
        yield linear(
            name,
            f"p = Abs (h)\ny = {name}{fmod} (p, q)",
            "c: b.0 w.1 | q.0 v.0" if name != "Pow" else "",
            "weight",
            q="c" if name == "Pow" else "positive: c",
        )
        yield linear(name, f"p = Abs (h)\ny = {name}{fmod} (p, q)", label="scalar", q=2.0)
        yield linear(name, f"p = Cosh (h)\ny = {name}{fmod} (p, q)", label="at 1, scalar", q=0.7)
        yield linear(name, f"p = Cosh (h)\ny = {name}{fmod} (q, p)", label="below", q=0.7)
    yield linear("Mod", "p = Sub (h, one)\ny = Mod <fmod = 1> (p, q)", label="at -1", one=1.0, q=0.7)
    yield linear(
        "Mod", "f = Sub (h, one)\np = Cast <to = 7> (f)\nm = Mod (p, q)\ny = Cast <to = 1> (m)", label="integers",
        one=2.0, q=[3],
    )  # fmt: skip
    for name in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"):
        real = lambda text: f"{text}\ny = Cast <to = 1> (m)"  # noqa: E731
        yield _pair(name, real(f"p = Round (h)\nq = Round (k)\nm = {name} (p, q)"), label="two layers")
        yield linear(name, real(f"m = {name} (h, q)"), label="scalar", q=0.3)
        yield linear(name, real(f"p = Relu (h)\nm = {name} (p, q)"), "c: b.0 q.0 w.1 | v.0", "weight", q="c")
        yield linear(name, real(f"p = Round (h)\nq = Round (x_other)\nm = {name} (p, q)"), "", "input", x_other="N 1")
    for name in ("And", "Or", "Xor"):
        real = lambda text: f"p = Greater (h, zero)\n{text}\ny = Cast <to = 1> (m)"  # noqa: E731
        yield _pair(name, real(f"q = Greater (k, zero)\nm = {name} (p, q)"), label="two layers", zero=0.0)
    yield linear(
        "And", "p = Greater (h, zero)\nq = Greater (x_other, zero)\nm = And (p, q)\ny = Cast <to = 1> (m)",
        label="input", zero=0.0, x_other="N 1",
    )  # fmt: skip
    yield linear(
        "And", "p = LessOrEqual (h, zero)\nq = Greater (x_other, zero)\nm = And (p, q)\ny = Cast <to = 1> (m)", "",
        label="true and input", zero=0.0, x_other="N 1",
    )  # fmt: skip
    yield linear(
        "Or", "p = Greater (h, zero)\nq = Greater (x_other, zero)\nm = Or (p, q)\ny = Cast <to = 1> (m)", "",
        label="input", zero=0.0, x_other="N 1",
    )  # fmt: skip
    for name in ("BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitShift"):
        kind = ' <direction = "LEFT">' if name == "BitShift" else ""
        cast = lambda a: f"{a}a = Abs ({a})\n{a}m = Mul ({a}a, three)\n{a}i = Cast <to = 12> ({a}m)"  # noqa: E731
        body = f"{cast('h')}\n{cast('k')}\nm = {name}{kind} (hi, ki)\ny = Cast <to = 1> (m)"
        yield _pair(name, body, three=3.0)
    yield _pair("Where", "m = Greater (h, zero)\ny = Where (m, h, k)", label="two layers", zero=0.0)
    yield _pair(
        "Where", "m = Greater (x_other, zero)\ny = Where (m, h, k)", label="input chooses", zero=0.0, x_other="N 1"
    )
    yield linear("Where", "m = Greater (x_other, q)\ny = Where (m, h, q)", "", "other value", q=0.5, x_other="N 1")
    yield linear("Where", "m = Greater (h, q)\ny = Where (m, q, h)", label="constant choice", q=0.5)


# -- linear -----------------------------------------------------------------------------------------------------------


def _linear() -> Iterator[Case]:
    yield case("Gemm", "h = Gemm (x, w, b)\nz = Gemm (h, v, k)", FREE, **LINEAR, k="2")
    yield case("Gemm", "h = Gemm <transB = 1> (x, w, b)\nz = Gemm <transB = 1> (h, v)", "c: b.0 w.0 | v.1", "transB",
               **{**LINEAR, "w": "c 3", "v": "2 c"})  # fmt: skip
    yield case("Gemm", "h = Gemm <transB = 1> (w, x, b)\nz = Gemm <transA = 1> (h, v)", "c: b.0 w.0 | v.0", "transA",
               **{**LINEAR, "w": "c 3", "b": "c 1"})  # fmt: skip
    yield case("Gemm", "h = Gemm <alpha = 0.5, beta = 0.25> (x, w, b)\np = Cosh (h)\nz = Gemm <alpha = 3.0, beta = 0.5> (p, v, k)",
               FREE, "scaled, folds", **LINEAR, k="2")  # fmt: skip
    yield case(
        "Gemm", "h = Gemm (x, w, b)\np = Cosh (h)\nz = Gemm (p, v, k)", FREE, "folds into one number", **LINEAR, k="1"
    )
    yield case(
        "Gemm",
        "h = Gemm (x, w, b)\np = Cosh (h)\nz = Gemm (p, v, k)",
        FREE,
        "folds into a column",
        **{**LINEAR, "x": "4 3"},
        k="4 1",
    )
    yield case("Gemm", "h = Gemm (x, w, b)\nk = Gemm (x, u)\nz = Gemm <transB = 1> (h, k)", "c: b.0 u.1 w.1",
               "two layers", **LINEAR, u="3 c")  # fmt: skip
    yield case("MatMul", "h = MatMul (x, w)\nz = MatMul (h, v)", "c: w.1 | v.0", x="N s 3", w="3 c", v="c 2")
    yield case(
        "MatMul",
        "h = MatMul (x, w)\np = Cosh (h)\nz = MatMul (p, v)",
        "c: w.1 | v.0",
        "folds",
        x="N s 3",
        w="3 c",
        v="c 2",
    )
    yield case("MatMul", "h = MatMul (x, w)\nz = MatMul (h, v)", "c: w.1 | v.0", "vector", x="N 3", w="3 c", v="c")
    yield case(
        "MatMul", "h = MatMul (w, x)\nz = MatMul (v, h)", "c: w.0 | v.1", "weight first", x="3 s", w="c 3", v="2 c"
    )
    yield case("MatMul", "h = MatMul (x, w)\np = Cosh (h)\nz = MatMul (p, v)", "c: w.2 | v.1", "batches of weights",
               x="N e s 3", w="e 3 c", v="e c 2")  # fmt: skip
    yield case("MatMul", "h = MatMul (x, w)\nk = MatMul (x, u)\nt = Transpose <perm = [0, 2, 1]> (k)\nz = MatMul (h, t)",
               "c: u.1 w.1", "two layers", x="N s 3", w="3 c", u="3 c")  # fmt: skip
    yield attention("MatMul", "heads")
    yield case("Einsum", 'h = Einsum <equation = "bsi,io->bso"> (x, w)\nz = Einsum <equation = "bso,op"> (h, v)', "c: w.1 | v.0",
               x="N s 3", w="3 c", v="c 2")  # fmt: skip
    yield case("Einsum", 'h = Einsum <equation = "...i,io->...o"> (x, w)\nz = Einsum <equation = "...o,po->...p"> (h, v)', "c: w.1 | v.1",
               "ellipsis", x="N s 3", w="3 c", v="2 c")  # fmt: skip
    yield case(
        "Einsum", """
        h = Einsum <equation = "bsi,igd->bgsd"> (x, w)
        k = Einsum <equation = "bsi,igd->bgsd"> (x, u)
        a = Einsum <equation = "bgsd,bgtd->bgst"> (h, k)
        z = Einsum <equation = "bgst,gto->bso"> (a, v)""",
        "g: u.1 w.1 | v.0; d: u.2 w.2", "heads", x="N s 3", w="3 g d", u="3 g d", v="g s 2",
    )  # fmt: skip
    fused = {"x": "N s 3", "wq": "3 g*d", "wk": "3 g*d", "wv": "3 g*e", "wo": "g*e 2"}
    layers = "q = MatMul (x, wq)\nk = MatMul (x, wk)\nv = MatMul (x, wv)"
    attend = "a = Attention <q_num_heads = {g}, kv_num_heads = {g}> (q, k, v)"
    yield case("Attention", f"{layers}\n{attend}\nz = MatMul (a, wo)", "g: wk.1 wq.1 wv.1 | wo.0", **fused, opset=23)
    yield case("Attention", f"{layers}\n{attend.replace('(q, k, v)', '(q, k, v, mask)')}\nz = MatMul (a, wo)",
               "g: wk.1 wq.1 wv.1 | wo.0", "mask", **fused, mask="s s", opset=23)  # fmt: skip
    yield from _convolutions()


def attention(operator: str, label: str) -> Case:
    """Attention by heads: g heads of size d."""
    return case(
        operator, """
        q = MatMul (x, wq)
        q4 = Reshape (q, split)
        qt = Transpose <perm = [0, 2, 1, 3]> (q4)
        k = MatMul (x, wk)
        k4 = Reshape (k, split)
        kt = Transpose <perm = [0, 2, 3, 1]> (k4)
        v = MatMul (x, wv)
        v4 = Reshape (v, split)
        vt = Transpose <perm = [0, 2, 1, 3]> (v4)
        scores = MatMul (qt, kt)
        probabilities = Softmax <axis = -1> (scores)
        mixed = MatMul (probabilities, vt)
        back = Transpose <perm = [0, 2, 1, 3]> (mixed)
        flat = Reshape (back, merge)
        z = MatMul (flat, wo)""",
        "g: wk.1 wq.1 wv.1 | wo.0", label,
        x="N s i", wq="i g*d", wk="i g*d", wv="i g*d", wo="g*d o", split=[0, 0, "g", "d"], merge=[0, 0, "g*d"],
    )  # fmt: skip


def _convolutions() -> Iterator[Case]:
    yield case("Conv", "h = Conv <pads = [1, 1, 1, 1]> (x, w, b)\nz = Conv <pads = [1, 1, 1, 1]> (h, v, k)", FREE_CHANNELS,
               **{**IMAGE, "w": "c 3 3 3", "v": "2 c 3 3"}, k="2")  # fmt: skip
    yield image("Conv", "y = Conv <group = {c}, pads = [1, 1, 1, 1]> (h, u, k)", "c: b.0 k.0 u.0 w.0 | v.1", "depthwise",
                u="c 1 3 3", k="c")  # fmt: skip
    yield image("Conv", "y = Conv <group = {c}> (h, u)", "c: b.0 u.0 w.0 | v.1", "depthwise, two for each channel",
                u="c*2 1 3 3", v="2 c*2 1 1")  # fmt: skip
    grouped = {"w": "g*d 3 1 1", "b": "g*d", "u": "g*e d 3 3", "v": "2 g*e 1 1"}
    yield image(
        "Conv",
        "y = Conv <group = {g}> (h, u)",
        "g: b.0 u.0 w.0 | v.1",
        "grouped, by group",
        **grouped,
        g=(4, 3),
        d=(2,),
        e=(3, 2),
    )
    yield image(
        "Conv",
        "y = Conv <group = {g}> (h, u)",
        "d: b.0 w.0 | u.1; e: u.0 | v.1",
        "grouped, by channel",
        **grouped,
        g=(2,),
        d=(4, 3),
        e=(3, 5),
    )
    yield sequence(
        "Conv", "y = Conv (h, u, k)", "c: b.0 w.0 | u.1; o: k.0 u.0 | v.1", "1d", u="o c 3", k="o", v="2 o 1"
    )
    yield case(
        "Conv", "h = Conv (x, w)\nz = Conv (h, v)", "c: w.0 | v.1", "3d", x="N 2 3 3 3", w="c 2 1 2 1", v="2 c 2 1 2"
    )
    yield image("Conv", "y = Sigmoid (h)", FREE_CHANNELS, "folds")
    yield case("Conv", "h = Conv (x, w, b)\np = Cosh (h)\nq = Conv <group = {g}> (p, u, k)\nz = Conv (q, v)",
               "g: b.0 k.0 u.0 w.0 | v.1", "folds, grouped", **{**IMAGE, **grouped, "k": "g*e"}, g=(4, 3), d=(2,), e=(2,))  # fmt: skip
    yield case("Conv", "h = Conv (x, w, b)\np = Sigmoid (h)\nz = Conv <pads = [1, 1, 1, 1]> (p, v)", "", "leaks at the border",
               **{**IMAGE, "v": "2 c 3 3"})  # fmt: skip
    yield case("Conv", 'h = Conv (x, w, b)\np = Sigmoid (h)\nz = Conv <auto_pad = "SAME_UPPER"> (p, v)', "", "leaks at the automatic border",
               **{**IMAGE, "v": "2 c 3 3"})  # fmt: skip
    yield case("ConvTranspose", "h = ConvTranspose (x, w, b)\nz = ConvTranspose <strides = [2, 2]> (h, v, k)", "c: b.0 w.1 | v.0",
               x="N 3 s s", w="3 c 2 2", b="c", v="c 2 2 2", k="2")  # fmt: skip
    yield image(
        "ConvTranspose", "y = ConvTranspose <group = {c}> (h, u)", "c: b.0 u.0 w.0 | v.1", "depthwise", u="c 1 2 2"
    )
    yield image("ConvTranspose", "y = ConvTranspose <group = {g}> (h, u)", "g: b.0 u.0 w.0 | v.1", "grouped, by group",
                w="g*d 3 1 1", b="g*d", u="g*d e 2 2", v="2 g*e 1 1", g=(4, 3), d=(2,), e=(3, 2))  # fmt: skip
    yield image("ConvTranspose", "y = ConvTranspose <group = {g}> (h, u)", "d: b.0 w.0 | u.0; e: u.1 | v.1", "grouped, by channel",
                w="g*d 3 1 1", b="g*d", u="g*d e 2 2", v="2 g*e 1 1", g=(2,), d=(4, 3), e=(3, 5))  # fmt: skip


# -- normalisations and reductions ------------------------------------------------------------------------------------


def _normal() -> Iterator[Case]:
    statistics = {"gamma": "c", "beta": "c", "mean": "c", "var": "positive: c"}
    bn = "BatchNormalization (h, gamma, beta, mean, var)"
    groups = "c: b.0 beta.0 gamma.0 w.0 | mean.0 v.1 var.0"
    yield image("BatchNormalization", f"y = {bn}", groups, **statistics)
    yield image("BatchNormalization", f"n = {bn}\ny = Sigmoid (n)", groups, "folds", **statistics)
    yield linear(
        "BatchNormalization", f"y = {bn}", "c: b.0 beta.0 gamma.0 w.1 | mean.0 v.0 var.0", "rank 2", **statistics
    )
    yield image("InstanceNormalization", "y = InstanceNormalization (h, gamma, beta)", "c: b.0 beta.0 gamma.0 w.0 | v.1",
                gamma="c", beta="c")  # fmt: skip
    normed = {"w": "g*d 3 1 1", "b": "g*d", "v": "2 g*d 1 1"}
    yield image("GroupNormalization", "y = GroupNormalization <num_groups = {g}> (h, gamma, beta)",
                "g: b.0 beta.0 gamma.0 w.0 | v.1", **normed, gamma="g*d", beta="g*d", opset=21, g=(3, 2, 4))  # fmt: skip
    yield image("GroupNormalization", "y = GroupNormalization <num_groups = {g}> (h, gamma, beta)",
                "g: b.0 beta.0 gamma.0 w.0 | v.1", "one scale for each group", **normed, gamma="g", beta="g", opset=18, g=(3, 2, 4))  # fmt: skip
    yield sequence(
        "LayerNormalization", "y = LayerNormalization (h, gamma, beta)", "", "over space", gamma="s", beta="s"
    )
    yield sequence("LayerNormalization", "y = LayerNormalization (h, gamma)", label="over space, no bias", gamma="s")
    yield linear(
        "LayerNormalization", "y = LayerNormalization (h, gamma, beta)", "", "over channels", gamma="c", beta="c"
    )
    yield sequence("LayerNormalization", "y = LayerNormalization <axis = 1> (h, gamma)", "", "over both", gamma="c s")
    yield sequence("RMSNormalization", "y = RMSNormalization (h, gamma)", label="over space", gamma="s", opset=23)
    yield linear("RMSNormalization", "y = RMSNormalization (h, gamma)", "", "over channels", gamma="c", opset=23)
    yield image("MeanVarianceNormalization", "y = MeanVarianceNormalization (h)", "")  # 0/0 where a slice is constant
    yield image(
        "MeanVarianceNormalization",
        "p = Add (h, x_noise)\nn = MeanVarianceNormalization (p)\ny = Mul (n, m)",
        "c: b.0 m.0 w.0 | v.1",
        "of noise",
        x_noise="N 1 s s",
        m="c 1 1",
    )
    yield image("MeanVarianceNormalization", "y = MeanVarianceNormalization <axes = [1, 2]> (h)", "", "over channels")
    yield image("LRN", "y = LRN <size = 3, alpha = 0.9> (h)", "")
    for name in ("Softmax", "LogSoftmax", "Hardmax", "LpNormalization"):
        yield linear(name, f"y = {name} <axis = 1> (h)", FREE if name == "LpNormalization" else "", "over channels")
    yield sequence("LpNormalization", "y = LpNormalization <axis = 2, p = 1> (h)", label="over space, of zeros")
    yield sequence(
        "LpNormalization", "p = Abs (h)\nq = Add (p, k)\ny = LpNormalization <axis = -1> (q)", "", "over space", k=0.5
    )
    for name in ("Softmax", "LogSoftmax", "Hardmax"):
        yield sequence(name, f"m = {name} <axis = -1> (h)\ny = Mul (m, h)", label="over space")
        yield sequence(name, f"y = {name} <axis = 2> (h)", "", label="over space, alone")
    yield linear("Softmax", "y = Softmax (h)", "", "before opset 13", opset=11)


def _reductions() -> Iterator[Case]:
    for name in ("Sum", "L1", "L2", "SumSquare", "Mean", "Max", "Min", "LogSumExp", "LogSum", "Prod"):
        exact = name in ("Sum", "L1", "L2", "SumSquare")
        op = f"Reduce{name}"
        positive = "p = Abs (h)\nq = Add (p, one)"  # rests at 1
        by_axes = {"axes": [1], "opset": 18}
        before = "Abs" if name == "LogSum" else "Neg"
        text = f"h = Conv (x, w, b)\np = {before} (h)\nz = {op} (p, axes)"
        yield case(
            op,
            text,
            "c: b.0 w.0" if exact or name == "LogSum" else "",
            "over channels",
            **{**SEQUENCE, **by_axes} | {"v": "1"},
        )
        gone = name in ("LogSum", "LogSumExp")
        yield sequence(
            op,
            f"p = {before} (h)\ny = {op} (p, axes)",
            "" if gone else FREE_CHANNELS,
            "over space",
            axes=[-1],
            opset=18,
        )
        yield sequence(op, f"{positive}\ny = {op} (q, axes)", FREE_CHANNELS if name in ("Mean", "Max", "Min") else "", "over space, at 1",
                       axes=[2], opset=18, one=1.0)  # fmt: skip
        shape = {**LINEAR, "x": "N s 3"}
        yield case(op, f"h = MatMul (x, w)\nk = Abs (h)\np = {op} <keepdims = 0> (k, axes)\nq = Mul (p, m)\nz = Gemm (q, v)",
                   "c: m.0 w.1 | v.0" if name != "LogSum" else "", "drops the axis", **shape | {"m": "c"}, axes=[1], opset=18)  # fmt: skip
    yield sequence("ReduceMean", "y = ReduceMean <axes = [2]> (h)", label="attribute", opset=13)
    yield sequence("ReduceSum", "y = ReduceSum <noop_with_empty_axes = 1> (h)", label="no axes")
    for name in ("ArgMax", "ArgMin"):
        yield sequence(name, f"a = {name} <axis = 2> (h)\nf = Cast <to = 1> (a)\ny = Mul (f, h)", label="over space")
        yield case(
            name,
            f"h = Conv (x, w, b)\nz = {name} <axis = 1, keepdims = 0> (h)",
            "",
            "over channels",
            returns="int64",
            **SEQUENCE | {"v": "1"},
        )
    yield sequence("CumSum", "y = CumSum (h, axis)", label="over space", axis=np.array(2))
    yield linear("CumSum", "y = CumSum (h, axis)", "", "over channels", axis=np.array(1))
    yield image("Trilu", "y = Trilu (h)")
    yield image("Trilu", "y = Trilu <upper = 0> (h, k)", label="lower", k=np.array(-1))
    yield case(
        "Trilu", "h = MatMul (x, w)\ny = Trilu (h)\nz = MatMul (y, v)", "", "over channels", x="N s 3", w="3 c", v="c 2"
    )
    for name in ("AveragePool", "MaxPool", "LpPool"):
        yield image(name, f"y = {name} <kernel_shape = [2, 2], pads = [1, 1, 1, 1]> (h)")
        yield image(
            name,
            f"p = Sigmoid (h)\ny = {name} <kernel_shape = [2, 2]> (p)",
            "" if name == "LpPool" else FREE_CHANNELS,
            "at 0.5",
        )
        along = f"y = {name} <kernel_shape = [2], strides = [1], pads = [1, 0]> (h)"
        yield case(
            name, f"h = MatMul (x, w)\n{along}\nz = MatMul (y, v)", "", "over channels", x="N 3 s", w="s c", v="c 2"
        )
    counted = "kernel_shape = [2, 2], pads = [1, 1, 1, 1]"
    yield image(
        "AveragePool",
        f"p = Sigmoid (h)\ny = AveragePool <{counted}, count_include_pad = 1> (p)",
        "",
        "counts the border",
    )
    yield image("AveragePool", f"p = Sigmoid (h)\ny = AveragePool <{counted}> (p)", label="leaves the border out")
    for name in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"):
        yield image(name, f"y = {name} (h)")
        yield case(
            name,
            f"h = MatMul (x, w)\nz = {name} (h)",
            "c: w.1" if name == "GlobalLpPool" else "",
            "over channels",
            x="N 3 s",
            w="s c",
        )


def _recurrent() -> Iterator[Case]:
    for name, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
        weights = {
            "x": "s N 3",
            "w": "3 i",
            "W": f"1 {gates}*c i",
            "R": f"1 {gates}*c c",
            "B": f"1 {2 * gates}*c",
            "v": "c 2",
        }
        body = f"{{}} = {name} <hidden_size = {{c}}> (h, W, R, B)"
        before, squeeze = "h = MatMul (x, w)", "y = Squeeze (a, one)\nz = MatMul (y, v)"
        inner = "i: w.1 | W.2"
        yield case(
            name,
            f"{before}\n{body.replace('{}', 'a', 1)}\n{squeeze}",
            f"{inner}; c: B.1 R.1 R.2 W.1 | v.0",
            "all states",
            **weights,
            one=[1],
        )
        yield case(name, f"{before}\n{body.replace('{}', ', a', 1)}\ny = Squeeze (a, one)\nz = MatMul (y, v)",
                   f"{inner}; c: B.1 R.1 R.2 W.1 | v.0", "last state", **weights, one=[0])  # fmt: skip
        both = {**weights, "W": f"2 {gates}*c i", "R": f"2 {gates}*c c", "B": f"2 {2 * gates}*c"}
        yield case(name, f"{before}\na = {name} <hidden_size = {{c}}, direction = \"bidirectional\"> (h, W, R, B)\n"
                   "t = Transpose <perm = [0, 2, 1, 3]> (a)\ny = Reshape (t, merge)\nz = MatMul (y, v)",
                   f"{inner}; c: B.1 R.1 R.2 W.1 | v.0", "both directions", **{**both, "v": "2*c 2"}, merge=[0, 0, "2*c"])  # fmt: skip
        states = ", , h0, c0" if name == "LSTM" else ", , h0"
        extra = {"h0": "1 2 c"} | ({"c0": "1 2 c"} if name == "LSTM" else {})
        yield case(name, f"{before}\na = {name} <hidden_size = {{c}}> (h, W, R, B{states})\n{squeeze}",
                   f"{inner}; c: B.1 R.1 R.2 W.1 {' '.join(f'{k}.2' for k in extra)} | v.0", "learned start",
                   **{**weights, "x": "s 2 3"}, **extra, one=[1])  # fmt: skip
    yield case("LSTM", "h = MatMul (x, w)\na = LSTM <hidden_size = {c}> (h, W, R, B, , , , P)\ny = Squeeze (a, one)\nz = MatMul (y, v)",
               "i: w.1 | W.2; c: B.1 P.1 R.1 R.2 W.1 | v.0", "peepholes", one=[1],
               x="s N 3", w="3 i", W="1 4*c i", R="1 4*c c", B="1 8*c", P="1 3*c", v="c 2")  # fmt: skip


# -- moving data ------------------------------------------------------------------------------------------------------


def _moves() -> Iterator[Case]:
    yield case("Transpose", "h = Conv (x, w, b)\nt = Transpose <perm = [0, 2, 1]> (h)\nz = MatMul (t, v)", "c: b.0 w.0 | v.0",
               **{**SEQUENCE, "v": "c 2"})  # fmt: skip
    yield case(
        "Transpose",
        "t = Transpose (w)\nh = MatMul (x, t)\nz = MatMul (h, v)",
        "c: w.0 | v.0",
        "weight",
        **LINEAR | {"w": "c 3", "b": "1"},
    )
    yield case("Reshape", "h = Conv (x, w, b)\nf = Reshape (h, sizes)\nz = Gemm (f, v)", "c: b.0 w.0 | v.0", "merges",
               **{**SEQUENCE, "v": "c*s 2"}, sizes=[0, -1])  # fmt: skip
    yield case("Reshape", "h = Conv (x, w, b)\nf = Reshape (h, sizes)\nz = Gemm (f, v)", "c: b.0 w.0 | v.0", "merges, written out",
               **{**SEQUENCE, "v": "c*s 2", "x": "2 3 s"}, sizes=[2, "c*s"])  # fmt: skip
    halves = {"x": "N 3", "w": "3 g*d", "b": "g*d"}
    yield case("Reshape", "h = Gemm (x, w, b)\nr = Reshape (h, sizes)\nz = MatMul (r, v)", "d: b.0 w.1 | v.0",
               "splits, the first half is fixed", **halves, v="d 2", sizes=[0, "g", "d"])  # fmt: skip
    yield case("Reshape", "h = Gemm (x, w, b)\nr = Reshape (h, sizes)\nt = Transpose <perm = [0, 2, 1]> (r)\nz = MatMul (t, v)",
               "g: b.0 w.1 | v.0", "splits, the last half is fixed", **halves, v="g 2", sizes=[-1, "g", "d"])  # fmt: skip
    yield image("Reshape", "r = Reshape (h, a)\nt = Transpose <perm = [0, 2, 1, 3, 4]> (r)\ny = Reshape (t, back)",
                "d: b.0 w.0 | v.1", "shuffle", w="g*d 3 1 1", b="g*d", v="2 g*d 1 1", a=[0, "g", "d", "s", "s"],
                back=[0, -1, "s", "s"], g=(2,), d=(3, 4))  # fmt: skip
    yield attention("Reshape", "heads")
    yield case(
        "Flatten",
        "h = Conv (x, w, b)\nf = Flatten (h)\nz = Gemm (f, v)",
        "c: b.0 w.0 | v.0",
        **{**SEQUENCE, "v": "c*s 2"},
    )
    yield case("Flatten", "h = Conv (x, w, b)\nf = Flatten <axis = 2> (h)\ng = Reshape (f, sizes)\nz = Conv (g, v)", FREE_CHANNELS, "axis 2",
               **SEQUENCE, sizes=[-1, "c", "s"])  # fmt: skip
    yield case("Squeeze", "h = Conv (x, w, b)\np = GlobalAveragePool (h)\nq = Squeeze (p, last)\nz = Gemm (q, v)", "c: b.0 w.0 | v.0",
               **{**SEQUENCE, "v": "c 2"}, last=[-1])  # fmt: skip
    yield linear(
        "Squeeze", "p = Unsqueeze <axes = [0, 3]> (h)\ny = Squeeze <axes = [0, 3]> (p)", label="attributes", opset=11
    )
    yield case("Unsqueeze", "h = Gemm (x, w, b)\np = Unsqueeze (h, last)\nz = Conv (p, v)", "c: b.0 w.1 | v.1",
               **{**LINEAR, "v": "2 c 1"}, last=[2])  # fmt: skip
    yield case("Expand", "h = Conv (x, w, b)\np = GlobalAveragePool (h)\ny = Expand (p, sizes)\nz = Conv (y, v)", FREE_CHANNELS, "space",
               **SEQUENCE, sizes=[1, 1, "s"])  # fmt: skip
    yield case("Expand", "h = Conv (x, w, b)\np = GlobalAveragePool (h)\ny = Expand (p, sizes)\nz = Conv (y, v)", FREE_CHANNELS, "names the channels",
               **SEQUENCE, sizes=[1, "c", "s"])  # fmt: skip
    yield linear("Expand", "e = Expand (q, sizes)\ny = Mul (h, e)", label="meets channels", q="1 1", sizes=[1, "c"])
    yield linear("Expand", "e = Expand (q, sizes)\ny = Add (h, e)", label="adds to channels", q=0.4, sizes=["c"])
    yield linear("ConstantOfShape", "n = Shape (h)\nf = ConstantOfShape (n)\ny = Add (h, f)", label="like")
    yield linear(
        "ConstantOfShape",
        "f = ConstantOfShape <value = float[1] {0.5}> (n)\ny = Add (h, f)",
        label="written out",
        n=["c"],
    )
    yield linear("Tile", "y = Tile (h, k)", label="batch", k=[2, 1])
    yield linear("Tile", "y = Tile (h, k)", label="channels", k=[1, 2], v="2*c 2")
    yield sequence("Tile", "y = Tile (h, k)", label="channels, then space", k=[1, 2, 3], v="2 2*c 1")
    yield from _selections()
    yield from _arrangements()
    yield from _made()


def _selections() -> Iterator[Case]:
    twice = {"c": (6, 4, 8)}
    parts = {"v": "c//2 2", **twice}
    yield linear("Slice", "p = Slice (h, start, end, axes)\nq = Slice (h, end, stop, axes)\ny = Mul (p, q)", "c//2: b.0 w.1 | v.0",
                 "halves", start=[0], end=["c//2"], stop=[9999], axes=[1], **parts)  # fmt: skip
    yield linear("Slice", "y = Slice (h, start, end, axes, step)", "c//2: b.0 w.1 | v.0; c//2: b.0 w.1", "every second",
                 start=[0], end=[9999], axes=[-1], step=[2], **parts)  # fmt: skip
    yield linear(
        "Slice",
        "y = Slice (h, start, end, axes, step)",
        label="backwards",
        start=[-1],
        end=[-9999],
        axes=[1],
        step=[-1],
    )
    yield linear(
        "Slice",
        "y = Slice (h, start, end, axes)",
        "c-1: b.0 w.1 | v.0; 1: b.0 w.1",
        "all but the last",
        start=[0],
        end=[-1],
        axes=[1],
        v="c-1 2",
        c=(4, 5),
    )
    yield linear(
        "Slice",
        "y = Slice <starts = [0], ends = [{c-1}], axes = [1]> (h)",
        "c-1: b.0 w.1 | v.0; 1: b.0 w.1",
        "attributes",
        v="c-1 2",
        opset=9,
        c=(4, 5),
    )
    yield sequence("Slice", "y = Slice (h, start, end, axes)", label="space", start=[1], end=[3], axes=[2])
    yield sequence(
        "Slice",
        "y = Slice (h, start, end, axes, step)",
        label="space backwards",
        start=[3],
        end=[0],
        axes=[2],
        step=[-2],
    )
    yield linear(
        "Split",
        "p, q = Split <axis = 1> (h, sizes)\ny = Mul (p, q)",
        "c//2: b.0 w.1 | v.0",
        "halves",
        sizes=["c//2", "c//2"],
        **parts,
    )
    yield linear(
        "Split",
        "p, q = Split <axis = -1, num_outputs = 2> (h)\ny = Mul (p, q)",
        "c//2: b.0 w.1 | v.0",
        "num_outputs",
        **parts,
    )
    yield linear("Split", "p, q = Split <axis = 1, split = [{c//2}, {c//2}]> (h)\ny = Mul (p, q)", "c//2: b.0 w.1 | v.0", "attribute",
                 opset=11, **parts)  # fmt: skip
    yield case("Split", "h = Gemm (x, w, b)\np, q = Split <axis = 1> (h, sizes)\ny = Gemm (p, v)\nz = Gemm (q, u)",
               "o: b.0 w.1 | v.0; c: b.0 w.1 | u.0", "to two layers", **{**LINEAR, "w": "3 o+c", "b": "o+c", "v": "o 2", "u": "c 2"},
               sizes=["o", "c"])  # fmt: skip
    yield case("Concat", "h = Gemm (x, w, b)\nk = Gemm (x, u)\ny = Concat <axis = 1> (h, k)\nz = Gemm (y, v)",
               "c: b.0 w.1 | v.0; o: u.1 | v.0", "channels", **{**LINEAR, "u": "3 o", "v": "c+o 2"})  # fmt: skip
    yield case("Concat", "h = Gemm (x, w, b)\nk = Gemm (x, u)\ny = Concat <axis = 0> (h, k)\nz = Gemm (y, v)", TWO, "batches",
               **LINEAR, u="3 c")  # fmt: skip
    yield case(
        "Concat",
        "h = Gemm (x, w, b)\ny = Concat <axis = 1> (h, x)\nz = Gemm (y, v)",
        FREE,
        "with the input",
        **{**LINEAR, "v": "c+3 2"},
    )
    yield case("Concat", "h = MatMul (x, w)\ny = Concat <axis = 1> (token, h)\nz = MatMul (y, v)", "c: token.2 w.1 | v.0", "class token",
               x="1 s 3", w="3 c", token="1 1 c", v="c 2")  # fmt: skip
    yield case("Concat", "h = Gemm (x, w, b)\np = Sigmoid (h)\nk = Gemm (x, u)\ny = Concat <axis = 0> (p, k)\nz = Gemm (y, v)", "",
               "two rests", **LINEAR, u="3 c")  # fmt: skip
    yield linear(
        "Gather", "y = Gather <axis = 1> (h, order)", label="reverses", order=np.arange(4)[::-1].copy(), c=(4,)
    )
    yield linear(
        "Gather",
        "y = Gather <axis = 1> (h, order)",
        "3: b.0 w.1 | v.0; 1: b.0 w.1",
        "repeats",
        order=np.array([0, 3, 1, -1, 0]),
        c=(4,),
        v="5 2",
    )
    yield sequence("Gather", "y = Gather <axis = 2> (h, order)", label="space", order=np.array([1, 0, 0]))
    yield case(
        "Gather", "e = Gather (w, x)\nz = MatMul (e, v)", "c: w.1 | v.0", "embedding", x="ids : N 3", w="7 c", v="c 2"
    )
    yield case(
        "Gather", "e = Gather (w, x)\nz = Gemm <transB = 1> (e, w)", "c: w.1", "tied embedding", x="ids : N", w="7 c"
    )
    yield case("Gather", "h = Gemm (x, w, b)\np = Gather <axis = 1> (h, first)\ny = Unsqueeze (p, axes)\nz = Gemm (y, k)\nq = Gemm (h, v)",
               "c-1: b.0 w.1 | v.0", "reads one alone", **LINEAR, first=np.array(0), axes=[1], k="1 2", c=(4, 5))  # fmt: skip
    yield case(
        "GatherND", "e = GatherND (w, x)\nz = MatMul (e, v)", "c: w.1 | v.0", "table", x="ids : 4 1", w="7 c", v="c 2"
    )
    yield case("ScatterND", "h = MatMul (w, x)\np = ScatterND (h, places, updates)\nz = MatMul (v, p)", "c-1: w.0 | v.1", "first axis", x="3 1", w="c 3",
               v="2 c", places=np.array([[1]]), updates="1 1")  # fmt: skip


def _arrangements() -> Iterator[Case]:
    yield image("Pad", "y = Pad (h, pads)", label="space", pads=[0, 0, 1, 0, 0, 0, 1, 2])
    yield image(
        "Pad", "y = Pad (h, pads, value)", label="space, with its rest", pads=[0, 0, 1, 0, 0, 0, 1, 2], value=0.0
    )
    yield image(
        "Pad",
        "y = Pad (h, pads, value)",
        "",
        label="space, with another value",
        pads=[0, 0, 1, 0, 0, 0, 1, 2],
        value=0.5,
    )
    yield image("Pad", 'y = Pad <mode = "reflect"> (h, pads)', label="space, reflected", pads=[0, 0, 1, 0, 0, 0, 1, 2])
    yield image(
        "Pad",
        'p = Sigmoid (h)\ny = Pad <mode = "edge"> (p, pads)',
        label="space, at 0.5",
        pads=[0, 0, 1, 0, 0, 0, 1, 2],
    )
    yield image("Pad", "y = Pad (h, pads)", label="channels", pads=[0, 1, 0, 0, 0, 2, 0, 0], v="2 c+3 1 1")
    yield image("Pad", "y = Pad (h, pads, , axes)", label="channels by axes", pads=[1, 0], axes=[1], v="2 c+1 1 1")
    yield image("Pad", "y = Pad <pads = [0, 1, 0, 0, 0, 0, 0, 1]> (h)", label="attributes", opset=10, v="2 c+1 1 1")
    yield image(
        "Pad",
        'y = Pad <mode = "reflect"> (h, pads)',
        "",
        label="channels, reflected",
        pads=[0, 1, 0, 0, 0, 0, 0, 0],
        v="2 c+1 1 1",
    )
    blocks = {"w": "4*c 3 1 1", "b": "4*c"}
    for mode in ("DCR", "CRD"):
        yield image("DepthToSpace", f'y = DepthToSpace <blocksize = 2, mode = "{mode}"> (h)', label=mode, **blocks)
    yield image("SpaceToDepth", "y = SpaceToDepth <blocksize = 2> (h)", s=(4, 6), v="2 4*c 1 1")
    yield image(
        "Resize",
        'y = Resize <mode = "linear"> (h, , scales)',
        label="scales",
        scales=np.array([1, 1, 2, 2], np.float32),
    )
    yield image("Resize", "y = Resize (h, , , sizes)", label="sizes", sizes=[2, "c", "2*s", "s"])
    yield case("Resize", "h = MatMul (x, w)\ny = Resize (h, , scales)\nz = MatMul (y, v)", "", "channels", x="N 3 s", w="s c", v="2*c 2",
               scales=np.array([1, 1, 2], np.float32))  # fmt: skip
    yield image("Upsample", "y = Upsample (h, scales)", scales=np.array([1, 1, 2, 2], np.float32), opset=9)


def _made() -> Iterator[Case]:
    """Tensors that are made from sizes or from nothing."""
    yield linear(
        "Shape", "n = Shape <start = 0, end = 1> (h)\nr = Concat <axis = 0> (n, last)\ny = Reshape (h, r)", last=[-1]
    )
    yield linear(
        "Shape",
        "n = Shape <start = 1> (h)\nf = Cast <to = 1> (n)\nq = Sqrt (f)\ny = Div (h, q)",
        label="its root is a number",
    )
    yield linear("Size", "n = Size (b)\nf = Cast <to = 1> (n)\ny = Div (h, f)")
    yield linear("Range", "r = Range (zero, n, one)\nf = Cast <to = 1> (r)\ny = Mul (h, f)", "", zero=np.array(0),
                 one=np.array(1), n=np.array(4), c=(4,))  # fmt: skip
    yield case(
        "EyeLike", "h = MatMul (x, w)\ne = EyeLike (h)\ny = Add (h, e)\nz = MatMul (y, v)", "", **LINEAR | {"b": "1"}
    )
    yield linear("RandomNormal", "r = RandomNormal <shape = [1, {c}], seed = 1.0> ()\ny = Add (h, r)", "")
    yield linear("RandomUniform", "r = RandomUniform <shape = [1, {c}], seed = 1.0> ()\ny = Mul (h, r)", "")
    yield linear("Constant", "k = Constant <value_float = 0.5> ()\ny = Add (h, k)")
    yield case("NonZero", "h = Gemm (x, w, b)\nz = NonZero (h)", "", returns="int64", x="N 3", w="3 c", b="c")


CASES = [*_elementwise(), *_binary(), *_linear(), *_normal(), *_reductions(), *_recurrent(), *_moves()]
