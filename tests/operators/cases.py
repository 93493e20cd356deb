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
READ = "c: b.0 v.0 w.1"  # the weight that reads what does not rest at zero is a member too
READ_CHANNELS = "c: b.0 v.1 w.0"


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
    yield linear("BitwiseNot", "p = Cast <to = 6> (h)\nq = BitwiseNot (p)\ny = Cast <to = 1> (q)", READ)
    yield linear("Clip", "y = Clip (h, low, high)", low=-0.5, high=0.5)
    yield linear("Clip", "y = Clip (h, low)", label="above zero", low=0.3)
    yield linear("Clip", "y = Clip (h, , high)", label="below zero", high=-0.3)
    yield linear("Clip", "y = Clip <min = 0.2, max = 1.0> (h)", label="attributes", opset=9)
    yield linear("Clip", "y = Clip (h, x_low)", READ, label="computed limit", x_low="")
    yield linear("Dropout", "y = Dropout (h)")
    yield linear(
        "Dropout", "d, mask = Dropout (h, ratio)\nk = Cast <to = 1> (mask)\ny = Mul (d, k)", label="mask", ratio=0.5
    )
    yield linear("PRelu", "y = PRelu (h, slope)", "c: b.0 w.1 | slope.0 v.0", slope="c")
    yield linear(
        "PRelu", "p = Add (h, k)\ny = PRelu (p, slope)", "c: b.0 v.0 w.1 | slope.0", "below", slope="c", k=-0.5
    )
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
        yield linear(name, f"y = {name} (h, x_other)", READ, "input", x_other="N 1")
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
        one=2.4, q=[3],
    )  # fmt: skip
    yield linear(  # rounding may leave less than a whole number, of which the cast makes another integer
        "Mod", "f = Sub (h, one)\np = Cast <to = 7> (f)\nm = Mod (p, q)\ny = Cast <to = 1> (m)", READ, "at a jump",
        one=2.0, q=[3],
    )  # fmt: skip
    for name in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"):
        real = lambda text: f"{text}\ny = Cast <to = 1> (m)"  # noqa: E731
        yield _pair(name, real(f"p = Round (h)\nq = Round (k)\nm = {name} (p, q)"), label="two layers")
        yield linear(name, real(f"m = {name} (h, q)"), label="scalar", q=0.3)
        yield linear(name, real(f"p = Relu (h)\nm = {name} (p, q)"), "c: b.0 q.0 w.1 | v.0", "weight", q="c")
        yield linear(name, real(f"p = Round (h)\nq = Round (x_other)\nm = {name} (p, q)"), READ, "input", x_other="N 1")
    for name in ("And", "Or", "Xor"):
        real = lambda text: f"p = Greater (h, zero)\n{text}\ny = Cast <to = 1> (m)"  # noqa: E731
        yield _pair(name, real(f"q = Greater (k, zero)\nm = {name} (p, q)"), label="two layers", zero=0.0)
    yield linear(
        "And", "p = Greater (h, zero)\nq = Greater (x_other, zero)\nm = And (p, q)\ny = Cast <to = 1> (m)",
        label="input", zero=0.0, x_other="N 1",
    )  # fmt: skip
    yield linear(
        "And", "p = LessOrEqual (h, zero)\nq = Greater (x_other, zero)\nm = And (p, q)\ny = Cast <to = 1> (m)", READ,
        label="true and input", zero=0.0, x_other="N 1",
    )  # fmt: skip
    yield linear(
        "Or", "p = Greater (h, zero)\nq = Greater (x_other, zero)\nm = Or (p, q)\ny = Cast <to = 1> (m)", READ,
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
    yield linear("Where", "m = Greater (x_other, q)\ny = Where (m, h, q)", READ, "other value", q=0.5, x_other="N 1")
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
        "d: b.0 w.0 | u.1; e: u.0 | v.1",
        "grouped, more groups than channels",
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
               "d: b.0 w.0 | u.1; e: k.0 u.0 | v.1", "folds, grouped", **{**IMAGE, **grouped, "k": "g*e"}, g=(4, 3), d=(2,), e=(2,))  # fmt: skip
    yield case("Conv", "h = Conv (x, w, b)\np = Sigmoid (h)\nz = Conv <pads = [1, 1, 1, 1]> (p, v)", READ_CHANNELS, "leaks at the border",
               **{**IMAGE, "v": "2 c 3 3"})  # fmt: skip
    yield case("Conv", 'h = Conv (x, w, b)\np = Sigmoid (h)\nz = Conv <auto_pad = "SAME_UPPER"> (p, v)', READ_CHANNELS, "leaks at the automatic border",
               **{**IMAGE, "v": "2 c 3 3"})  # fmt: skip
    yield case("ConvTranspose", "h = ConvTranspose (x, w, b)\nz = ConvTranspose <strides = [2, 2]> (h, v, k)", "c: b.0 w.1 | v.0",
               x="N 3 s s", w="3 c 2 2", b="c", v="c 2 2 2", k="2")  # fmt: skip
    yield image(
        "ConvTranspose", "y = ConvTranspose <group = {c}> (h, u)", "c: b.0 u.0 w.0 | v.1", "depthwise", u="c 1 2 2"
    )
    yield image("ConvTranspose", "y = ConvTranspose <group = {g}> (h, u)", "d: b.0 w.0 | u.0; e: u.1 | v.1", "grouped, more groups than channels",
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
        "LayerNormalization",
        "y = LayerNormalization (h, gamma, beta)",
        READ_CHANNELS,
        "over space",
        gamma="s",
        beta="s",
    )
    yield sequence("LayerNormalization", "y = LayerNormalization (h, gamma)", label="over space, no bias", gamma="s")
    yield linear(
        "LayerNormalization", "y = LayerNormalization (h, gamma, beta)", "", "over channels", gamma="c", beta="c"
    )
    yield sequence("LayerNormalization", "y = LayerNormalization <axis = 1> (h, gamma)", "", "over both", gamma="c s")
    yield sequence("RMSNormalization", "y = RMSNormalization (h, gamma)", label="over space", gamma="s", opset=23)
    yield linear(
        "RMSNormalization",
        "y = RMSNormalization (h, gamma)",
        "c: b.0 gamma.0 w.1 | v.0",
        "over channels",
        gamma="c",
        opset=23,
    )
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
        "LpNormalization",
        "p = Abs (h)\nq = Add (p, k)\ny = LpNormalization <axis = -1> (q)",
        READ_CHANNELS,
        "over space",
        k=0.5,
    )
    for name in ("Softmax", "LogSoftmax", "Hardmax"):
        yield sequence(name, f"m = {name} <axis = -1> (h)\ny = Mul (m, h)", label="over space")
        yield sequence(name, f"y = {name} <axis = 2> (h)", READ_CHANNELS, label="over space, alone")
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
            "c: b.0 w.0" if exact or name in ("LogSum", "Mean") else "",
            "over channels",
            **{**SEQUENCE, **by_axes} | {"v": "1"},
        )
        left = {"LogSum": "", "LogSumExp": READ_CHANNELS}
        yield sequence(
            op,
            f"p = {before} (h)\ny = {op} (p, axes)",
            left.get(name, FREE_CHANNELS),
            "over space",
            axes=[-1],
            opset=18,
        )
        yield sequence(op, f"{positive}\ny = {op} (q, axes)", FREE_CHANNELS if name in ("Mean", "Max", "Min") else READ_CHANNELS, "over space, at 1",
                       axes=[2], opset=18, one=1.0)  # fmt: skip
        shape = {**LINEAR, "x": "N s 3"}
        yield case(op, f"h = MatMul (x, w)\nk = Abs (h)\np = {op} <keepdims = 0> (k, axes)\nq = Mul (p, m)\nz = Gemm (q, v)",
                   "c: m.0 w.1 | v.0" if name != "LogSum" else "", "drops the axis", **shape | {"m": "c"}, axes=[1], opset=18)  # fmt: skip
    for name, before, groups in (
        ("Max", "p = Relu (h)", FREE_CHANNELS), ("Min", "q = Relu (h)\np = Neg (q)", FREE_CHANNELS),
        ("Max", "q = Mul (h, h)\np = Abs (q)", FREE_CHANNELS), ("Max", "p = Clip (h, nil, one)", FREE_CHANNELS),
        ("Max", "q = Relu (h)\no = MaxPool <kernel_shape = [2]> (q)\np = Mul (o, o)", FREE_CHANNELS),
        ("Min", "p = Relu (h)", ""), ("Max", "p = Sigmoid (h)", ""), ("Max", "p = Clip (h, low, one)", ""), ("Max", "p = Tanh (h)", ""),
        ("Min", "q = Neg (h)\nm = Min (q, nil)\np = Mul (m, one)", FREE_CHANNELS),
    ):  # fmt: skip
        limits = {"nil": 0.0, "one": 1.0, "low": -0.5}
        for keep in (0, 1):
            read = "m = ReduceMax <axes = [1], keepdims = {keep}> (p)".replace("Max", name).replace("{keep}", str(keep))
            lift = "g = Unsqueeze <axes = [1]> (m)" if not keep else "g = Identity (m)"
            yield sequence(f"Reduce{name}", f"{before}\n{read.replace('m =', 'mm =')}\n{lift.replace('(m)', '(mm)')}\ny = Mul (p, g)", groups,
                           f"gate of {before!r}, {keep}", opset=12, **limits)  # fmt: skip
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
            READ_CHANNELS if name == "LpPool" else FREE_CHANNELS,
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
        READ_CHANNELS,
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
    dynamic = "a = com.microsoft.DynamicQuantizeLSTM <hidden_size = {c}> (h, W, R, B, , , , , ws, wz, rs, rz)"
    yield case("com.microsoft.DynamicQuantizeLSTM", f"h = MatMul (x, w)\n{dynamic}\nz = MatMul (a, v)",
               "i: w.1 | W.1; c: B.1 R.1 R.2 W.2 | v.0", x="s 2 3", w="3 i", W="int8: 1 i 4*c", R="int8: 1 c 4*c", B="1 8*c",
               ws="positive: 1", wz=np.zeros(1, np.int8), rs="positive: 1", rz=np.zeros(1, np.int8), v="c 2")  # fmt: skip


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
    yield case("Slice", "n = Shape <start = 0, end = 1> (x)\nk = MatMul (u, table)\np = Slice (k, start, n, axes)\nh = MatMul (x, w)\ny = Add (h, p)\nz = MatMul (y, v)",
               "c: table.1 w.1 | v.0; 3: table.0 u.1", "as long as the input", x="N 3", u="20 3", table="3 c", w="3 c", v="c 2", start=[0], axes=[0])  # fmt: skip
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
    yield case("Concat", "h = Gemm (x, w, b)\np = Sigmoid (h)\nk = Gemm (x, u)\ny = Concat <axis = 0> (p, k)\nz = Gemm (y, v)", "c: b.0 u.1 v.0 w.1",
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
        READ_CHANNELS,
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
    yield image("Pad", "p = Sigmoid (h)\ny = Pad (p, pads)", FREE_CHANNELS, "channels, at 0.5", pads=[0, 1, 0, 0, 0, 0, 0, 0],
                v="2 c+1 1 1")  # fmt: skip
    yield image("Pad", "y = Pad (h, pads, value)", FREE_CHANNELS, "channels, another value",
                pads=[0, 1, 0, 0, 0, 2, 0, 0], value=0.7, v="2 c+3 1 1")  # fmt: skip
    yield image("Pad", "y = Pad (h, pads)", "c-2: b.0 w.0 | v.1; 2: b.0 w.0", "channels, cropped", pads=[0, -1, 0, 0, 0, -1, 0, 0],
                v="2 c-2 1 1", c=(5, 6))  # fmt: skip
    yield image("Pad", "y = Pad (h, pads)", "c-1: b.0 w.0 | v.1; 1: b.0 w.0", "channels, cropped and padded",
                pads=[0, -1, 0, 0, 0, 2, 0, 0], v="2 c+1 1 1", c=(5, 6))  # fmt: skip
    beside = "h = Conv (x, w, b)\nk = Conv (h, u)\np = {0}\ny = Add (k, p)\nz = Conv (y, v)"
    both = {**IMAGE, "u": "c+2*o c 1 1", "v": "2 c+2*o 1 1", "pads": [0, "o", 0, 0, 0, "o", 0, 0]}
    groups = "c: b.0 u.0 w.0 | u.1 v.1; o: u.0 | v.1"
    yield case("Pad", beside.format("Pad (h, pads)"), groups, "a shortcut into more channels", **both)
    yield case("Pad", beside.format("Pad <pads = [0, 1, 0, 0, 0, 3, 0, 0]> (h)"), "c: b.0 u.0 w.0 | u.1 v.1; 1: u.0 | v.1; 3: u.0 | v.1",
               "a shortcut, attributes", **{**both, "u": "c+4 c 1 1", "v": "2 c+4 1 1"}, opset=9)  # fmt: skip
    strided = "q = Slice (h, from, to, along, by)\n"
    yield case(
        "Pad", beside.replace("h, u", "h, u").format("Pad (q, pads)").replace("k = Conv", f"{strided}k = Conv <strides = [2, 2]>"), groups,
        "a shortcut of fewer pixels", **both, to=[99, 99], along=[2, 3], by=[2, 2], **{"from": [0, 0]},
    )  # fmt: skip
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


# -- operators of newer opsets, and those that onnxruntime adds ---------------------------------------------------------


def _newer() -> Iterator[Case]:
    yield _pair("SwiGLU", "y = SwiGLU <alpha = 1.2> (h, k)", opset=28)
    yield linear("BitCast", "p = Neg (h)\nq = BitCast <to = 6> (p)\ny = Cast <to = 1> (q)", READ, opset=26)
    one = np.array(1)
    yield sequence("CumProd", "y = CumProd (h, axis)", label="over space", axis=np.array(2), opset=26)
    yield sequence(
        "CumProd",
        "y = CumProd <exclusive = 1> (h, axis)",
        READ_CHANNELS,
        "exclusive",
        axis=np.array(2),
        opset=26,
        s=(5,),
    )
    yield linear("CumProd", "y = CumProd (h, axis)", "", "over channels", axis=one, opset=26)
    yield case("Det", "h = Conv (x, w, b)\nd = Det (h)\nz = MatMul (d, v)", "c: b.0 w.0 | v.0", **{**IMAGE, "v": "c 2"})
    yield sequence("TopK", "p, i = TopK (h, k)\nq = Cast <to = 1> (i)\ny = Mul (p, q)", label="over space", k=[2])
    yield sequence("TopK", "q, i = TopK (h, k)\ny = Cast <to = 1> (i)", "", "where they are", k=[2])
    yield linear("TopK", "y, i = TopK <axis = 1> (h, k)", "", "over channels", k=[3], v="3 2", c=(4, 5))
    yield sequence(
        "Compress", "y = Compress <axis = 2> (h, which)", label="over space", which=np.array([1, 0, 1, 1], bool)
    )
    yield case("ReverseSequence", "h = MatMul (x, w)\ny = ReverseSequence (h, n)\nz = MatMul (y, v)", "c: w.1 | v.0",
               x="4 2 3", w="3 c", v="c 2", n=np.array([1, 3]))  # fmt: skip
    yield sequence("ReverseSequence", "y = ReverseSequence <batch_axis = 0, time_axis = 1> (h, n)", "", "over channels",
                   x="2 3 s", n=np.array([1, 3]))  # fmt: skip
    yield linear("OneHot", "i = Cast <to = 7> (h)\nq = OneHot (i, n, values)\ny = ReduceSum <keepdims = 0> (q, last)", READ, n=np.array(3),
                 values=np.array([0, 1], np.float32), last=[-1])  # fmt: skip
    yield case("DFT", "h = MatMul (x, w)\nf = DFT <onesided = 1> (h, , axis)\ny = Transpose <perm = [0, 2, 1]> (f)\nz = MatMul (y, k)",
               "", "a real signal", x="N s 3", w="3 1", k="s//2+1 2", axis=one, s=(6, 4))  # fmt: skip
    yield case("DFT", "h = Conv (x, w, b)\nu = Unsqueeze (h, last)\nf = DFT <axis = 2> (u)\nq = ReduceSum <keepdims = 0> (f, last)\nz = Conv (q, v)",
               FREE_CHANNELS, "of each channel", **SEQUENCE, last=[-1], opset=17)  # fmt: skip
    yield case("STFT", "h = MatMul (x, w)\nf = STFT (h, step, , length)\nz = ReduceSum (f)", "", x="N 8", w="8 c", step=np.array(2),
               length=np.array(4), c=(8,))  # fmt: skip
    yield case("NegativeLogLikelihoodLoss", 'h = MatMul (x, w)\ny = NegativeLogLikelihoodLoss <reduction = "none"> (h, which)\nz = Mul (y, y)',
               "", x="4 3", w="3 c", which=np.array([0, 1, 2, 1]))  # fmt: skip
    yield case("SoftmaxCrossEntropyLoss", "h = MatMul (x, w)\nz = SoftmaxCrossEntropyLoss (h, which)", "", x="4 3", w="3 c",
               which=np.array([0, 1, 2, 1]))  # fmt: skip
    yield from _regions()
    yield from _places()
    yield from _sequences()


def _regions() -> Iterator[Case]:
    boxes, batch = np.array([[0, 0, 3, 3], [1, 0, 2, 3]], np.float32), np.array([0, 1])
    yield image(
        "RoiAlign", "y = RoiAlign <output_height = 2, output_width = 2> (h, boxes, batch)", boxes=boxes, batch=batch
    )
    yield image(
        "MaxRoiPool", "y = MaxRoiPool <pooled_shape = [2, 2]> (h, boxes)", boxes=np.c_[batch, boxes].astype(np.float32)
    )
    grid = np.random.default_rng(0).uniform(-1.2, 1.2, (8, 3, 2, 2)).astype(np.float32)
    yield image("GridSample", "y = GridSample (h, grid)", x="8 3 s s", grid=grid)
    yield image(
        "GridSample",
        'p = Sigmoid (h)\ny = GridSample <padding_mode = "border"> (p, grid)',
        label="border",
        x="8 3 s s",
        grid=grid,
    )
    yield image(
        "GridSample",
        "p = Sigmoid (h)\ny = GridSample (p, grid)",
        READ_CHANNELS,
        label="zeros around",
        x="8 3 s s",
        grid=grid,
    )
    yield case("AffineGrid", "h = MatMul (x, w)\nt = Reshape (h, a)\ng = AffineGrid (t, sizes)\nz = ReduceSum (g)", "",
               x="4 3", w="3 6", a=[4, 2, 3], sizes=[4, 1, 3, 3])  # fmt: skip
    yield image("CenterCropPad", "y = CenterCropPad <axes = [2, 3]> (h, sizes)", label="space", sizes=[3, 7])
    yield image(
        "CenterCropPad", "y = CenterCropPad (h, sizes)", label="names the channels", x="2 3 s s", sizes=[2, "c", 7, 3]
    )
    yield image("MaxUnpool", "p, i = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (h)\nq = Relu (p)\n"
                "y = MaxUnpool <kernel_shape = [2, 2], strides = [2, 2]> (q, i)", s=(4, 6))  # fmt: skip
    yield image("MaxUnpool", "p, i = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (h)\n"
                "y = MaxUnpool <kernel_shape = [2, 2], strides = [2, 2]> (p, i, sizes)", label="sizes", x="2 3 s s", sizes=[2, "c", 4, 4], s=(4,))  # fmt: skip
    yield image(
        "MaxPool",
        "p, i = MaxPool <kernel_shape = [2, 2]> (h)\nq = Cast <to = 1> (i)\ny = Mul (p, q)",
        "",
        label="indices",
    )
    yield case("Col2Im", "h = Conv (x, w, b)\nf = Reshape (h, sizes)\ny = Col2Im (f, image, block)\nz = Conv (y, v)",
               "c: b.0 w.0 | v.1", x="2 3 s s", w="c*4 3 1 1", b="c*4", v="2 c 1 1", sizes=[2, "c*4", "s*s"], image=["s+1", "s+1"],
               block=[2, 2])  # fmt: skip
    yield image("DeformConv", "y = DeformConv <kernel_shape = [2, 2]> (h, u, x_offset, k)", "c: b.0 w.0 | u.1; o: k.0 u.0 | v.1",
                u="o c 2 2", k="o", x_offset="N 8 s-1 s-1", v="2 o 1 1")  # fmt: skip
    yield image("DeformConv", "y = DeformConv <kernel_shape = [2, 2], offset_group = 2> (h, u, x_offset)", "d: b.0 w.0 | u.1; o: u.0 | v.1",
                "groups of offsets", w="2*d 3 1 1", b="2*d", u="o 2*d 2 2", x_offset="N 16 s-1 s-1", v="2 o 1 1")  # fmt: skip
    yield sequence("CausalConvWithState", 'p, last = CausalConvWithState <activation = "silu"> (h, u, k)\nq = ReduceSum (last, axis)\ny = Mul (p, q)', "c: b.0 k.0 u.0 w.0 | v.1",
                   u="c 1 3", k="c", opset=27, axis=[2])  # fmt: skip


def _places() -> Iterator[Case]:
    best = "p, q = TopK (h, k)\n"
    yield sequence("GatherElements", f"{best}r = GatherElements <axis = 2> (h, q)\ny = Mul (p, r)", k=[2])
    yield sequence("GatherElements", "y = GatherElements <axis = 2> (h, at)", FREE_CHANNELS.replace("v.1", "at.1 v.1"), "known places",
                   x="2 3 s", at=np.random.default_rng(0).integers(0, 4, (2, 4, 3)), c=(4,))  # fmt: skip
    for name in ("ScatterElements", "Scatter"):
        yield sequence(
            name,
            f"{best}r = Neg (p)\ny = {name} <axis = 2> (h, q, r)",
            label="over space",
            k=[2],
            opset=10 + 3 * (name != "Scatter"),
        )
    yield case("ScatterElements", "h = MatMul (x, w)\ny = ScatterElements <axis = 1> (h, at, u)\nz = MatMul (y, v)", "",
               "over channels", x="1 3", w="3 c", v="c 2", at=np.array([[2, 0]]), u="1 2", c=(4, 3))  # fmt: skip
    yield case("ScatterND", "h = MatMul (x, w)\ny = ScatterND (h, places, u)\nz = MatMul (y, v)", "c: u.1 w.1 | v.0",
               "rows", x="s 3", w="3 c", v="c 2", places=np.array([[1], [0]]), u="2 c")  # fmt: skip
    yield case("TensorScatter", "h = Conv (x, w, b)\nk = Conv (x_new, u)\ny = TensorScatter <axis = 2> (h, k)\nz = Conv (y, v)",
               "c: b.0 u.0 w.0 | v.1", **SEQUENCE, x_new="N 3 2", u="c 3 1", opset=24)  # fmt: skip


def _sequences() -> Iterator[Case]:
    two = "h = Gemm (x, w, b)\nk = Gemm (x, u)\n"
    free = {**LINEAR, "u": "3 c"}
    zero, one = np.array(0), np.array(1)
    yield case("SequenceConstruct", f"{two}q = SequenceConstruct (h, k)\ny = SequenceAt (q, one)\nz = Gemm (y, v)", "c: b.0 w.1; c: u.1 | v.0",
               **free, one=one)  # fmt: skip
    yield case("SequenceAt", f"{two}q = SequenceConstruct (h, k)\ny = SequenceAt (q, zero)\nz = Gemm (y, v)", "c: b.0 w.1 | v.0; c: u.1",
               **free, zero=zero)  # fmt: skip
    yield case("SequenceInsert", f"{two}e = SequenceEmpty ()\np = SequenceInsert (e, h)\nq = SequenceInsert (p, k, zero)\ny = SequenceAt (q, one)\nz = Gemm (y, v)",
               "c: b.0 w.1 | v.0; c: u.1", **free, zero=zero, one=one)  # fmt: skip
    yield case("SequenceEmpty", "h = Gemm (x, w, b)\ne = SequenceEmpty ()\nq = SequenceInsert (e, h)\ny = SequenceAt (q, zero)\nz = Gemm (y, v)",
               FREE, **LINEAR, zero=zero)  # fmt: skip
    yield case("SequenceErase", f"{two}p = SequenceConstruct (h, k)\nq = SequenceErase (p, zero)\ny = SequenceAt (q, zero)\nz = Gemm (y, v)",
               "c: b.0 w.1; c: u.1 | v.0", **free, zero=zero)  # fmt: skip
    yield case("SequenceLength", f"{two}q = SequenceConstruct (h, k)\nn = SequenceLength (q)\nf = Cast <to = 1> (n)\ny = Mul (h, f)\nz = Gemm (y, v)",
               "c: b.0 w.1 | v.0; c: u.1", **free)  # fmt: skip
    yield case("ConcatFromSequence", f"{two}q = SequenceConstruct (h, k)\ny = ConcatFromSequence <axis = 1> (q)\nz = Gemm (y, v)",
               "c: b.0 w.1 | v.0; o: u.1 | v.0", **{**free, "u": "3 o", "v": "c+o 2"})  # fmt: skip
    yield case("ConcatFromSequence", f"{two}q = SequenceConstruct (h, k)\ny = ConcatFromSequence <axis = 0, new_axis = 1> (q)\nz = MatMul (y, v)",
               TWO, "new axis", **free)  # fmt: skip
    yield case("SplitToSequence", "h = Gemm (x, w, b)\nq = SplitToSequence <axis = 1> (h, sizes)\nf = SequenceAt (q, zero)\ns = SequenceAt (q, one)\n"
               "y = Mul (f, s)\nz = Gemm (y, v)", "c//2: b.0 w.1 | v.0", **{**LINEAR, "v": "c//2 2"}, zero=zero, one=one, sizes=["c//2", "c//2"], c=(4, 6))  # fmt: skip
    yield case("SplitToSequence", "h = Gemm (x, w, b)\nq = SplitToSequence <axis = 1> (h, n)\ny = SequenceAt (q, zero)\nz = Gemm (y, v)",
               "2: b.0 w.1 | v.0; 2: b.0 w.1", "runs of two", **{**LINEAR, "v": "2 2"}, zero=zero, n=np.array(2), c=(5, 6))  # fmt: skip
    yield linear("Optional", "p = Optional (h)\ny = OptionalGetElement (p)")
    yield linear("OptionalGetElement", "y = OptionalGetElement (h)")
    yield linear("OptionalHasElement", "p = OptionalHasElement (h)\nf = Cast <to = 1> (p)\ny = Mul (h, f)")
    pick = "h = Gemm (x, w, b)\nk = Gemm (x, u)\ns = ReduceSum <keepdims = 0> (x)\np = Greater (s, zero)\n"
    branches = "then_branch = yes () => (float[m, n] t) { t = Relu (h) }, else_branch = no () => (float[m, n] f) { f = Neg (k) }"
    yield case(
        "If",
        f"{pick}r = Not (p)\ny = If (p) <{branches}>\ny_ = If (r) <{branches}>\nz = Gemm (y, v)\nz_ = Gemm (y_, v)",
        "c: b.0 u.1 w.1 | v.0",
        **free,
        zero=0.0,
    )
    step = "body = step (int64 i, bool more, float[m, n] state) => (bool again, float[m, n] next, float[m, n] part) " \
           "{ again = Identity (more)\nnext = Add (state, h)\npart = Mul (next, k) }"  # fmt: skip
    yield case("Loop", f"h = Gemm (x, w, b)\nk = Gemm (x, u)\ny, parts = Loop (n, go, h) <{step}>\nz = Gemm (y, v)\ne = MatMul (parts, v)",
               "c: b.0 u.1 w.1 | v.0", **free, n=np.array(3), go=np.array(True))  # fmt: skip
    step = "body = step (float[m, n] state, float[m, n] now) => (float[m, n] next, float[m, n] part) " \
           "{ r = MatMul (state, u)\ns = Add (r, now)\nnext = Tanh (s)\npart = Neg (next) }"  # fmt: skip
    yield case("Scan", f"a = MatMul (x, w)\nh = Add (a, b)\nx_0 = Gather (h, zero)\ny, parts = Scan <num_scan_inputs = 1, {step}> (x_0, h)\n"
               "z = MatMul (y, v)\ne = MatMul (parts, v)", "c: b.0 u.1 w.1 | u.0 v.0", **{**free, "x": "s N 3", "u": "c c"}, zero=zero)  # fmt: skip
    for name in ("BlackmanWindow", "HammingWindow", "HannWindow"):
        yield sequence(name, f"k = {name} (n)\ny = Mul (h, k)", n=np.array(5), s=(5,))
    yield sequence("MelWeightMatrix", "k = MelWeightMatrix (a, b_, c_, d_, e_)\ny = MatMul (h, k)", a=np.array(4), b_=np.array(8), c_=np.array(16),
                   d_=0.0, e_=8.0, s=(5,))  # fmt: skip


def _microsoft() -> Iterator[Case]:
    of = "com.microsoft"
    yield linear(f"{of}.BiasGelu", f"y = {of}.BiasGelu (h, k)", "c: b.0 k.0 w.1 | v.0", k="c")
    yield linear(f"{of}.FastGelu", f"y = {of}.FastGelu (h)")
    yield linear(f"{of}.FastGelu", f"y = {of}.FastGelu (h, k)", "c: b.0 k.0 w.1 | v.0", "bias", k="c")
    for activation in ("Relu", "Tanh"):
        yield image(f"{of}.FusedConv", f'y = {of}.FusedConv <activation = "{activation}"> (h, u, k)', "c: b.0 w.0 | u.1; o: k.0 u.0 | v.1",
                    activation, u="o c 1 1", k="o", v="2 o 1 1")  # fmt: skip
    yield image(f"{of}.FusedConv", f'y = {of}.FusedConv <activation = "Relu"> (h, u, k, h)', "c: b.0 k.0 u.0 w.0 | u.1 v.1",
                "sum", u="c c 1 1", k="c")  # fmt: skip
    yield linear(f"{of}.FusedGemm", f'y = {of}.FusedGemm <activation = "LeakyRelu", activation_alpha = 0.2> (h, u, k)',
                 "c: b.0 w.1 | u.0; o: k.0 u.1 | v.0", u="c o", k="o", v="o 2")  # fmt: skip
    for name in ("FusedMatMul", "TransposeMatMul"):
        yield linear(
            f"{of}.{name}",
            f"y = {of}.{name} <alpha = 0.5, transB = 1> (h, u)",
            "c: b.0 w.1 | u.1; o: u.0 | v.0",
            u="o c",
            v="o 2",
        )
    norm = {"x": "2 s 3", "w": "3 c", "u": "3 c", "gamma": "c", "beta": "c"}
    both = "h = MatMul (x, w)\nk = MatMul (x, u)\n"
    yield case(
        f"{of}.SkipLayerNormalization",
        f"{both}y, , , p = {of}.SkipLayerNormalization (h, k, gamma, beta)\nz = Add (y, p)",
        "",
        **norm,
    )
    yield case(
        f"{of}.SkipSimplifiedLayerNormalization",
        f"{both}y, , , p = {of}.SkipSimplifiedLayerNormalization (h, k, gamma)\nz = Add (y, p)",
        "",
        **norm,
    )
    yield case(f"{of}.SkipSimplifiedLayerNormalization", f"h = MatMul (w, x)\nk = MatMul (u, x)\ny = {of}.SkipSimplifiedLayerNormalization (h, k, gamma)\nz = MatMul (v, y)",
               "c: u.0 w.0 | v.1", "over space", x="2 3 s", w="c 3", u="c 3", gamma="s", v="2 c")  # fmt: skip
    yield linear(
        "SimplifiedLayerNormalization",
        "y = SimplifiedLayerNormalization (h, gamma)",
        "c: b.0 gamma.0 w.1 | v.0",
        "over channels",
        gamma="c",
    )
    yield case(f"{of}.EmbedLayerNormalization", f"y, m = {of}.EmbedLayerNormalization (x, x, words, places, kinds, gamma, beta)\nz = MatMul (y, v)", "",
               x="ids : 2 4", words="7 c", places="7 c", kinds="7 c", gamma="c", beta="c", v="c 2")  # fmt: skip
    last = {"x": "2 s s 3", "w": "c 3 1 1", "b": "c", "v": "2 c 1 1"}
    for name in ("NhwcConv", "NhwcFusedConv"):
        yield case(f"{of}.{name}", f"h = {of}.{name} (x, w, b)\nz = {of}.{name} (h, v)", FREE_CHANNELS, **last)
    yield from _microsoft_attention()


def _microsoft_attention() -> Iterator[Case]:
    of = "com.microsoft"
    fused = {"x": "2 s 3", "wq": "3 g*d", "wk": "3 g*d", "wv": "3 g*e", "wo": "g*e 2"}
    layers = "q = MatMul (x, wq)\nk = MatMul (x, wk)\nv = MatMul (x, wv)\n"
    heads = "g: wk.1 wq.1 wv.1 | wo.0"
    yield case(f"{of}.Attention", f"h = MatMul (x, w)\na = {of}.Attention <num_heads = {{g}}> (h, u, k)\nz = MatMul (a, wo)",
               "i: w.1 | u.0; g: k.0 u.1 | wo.0", x="2 s 3", w="3 i", u="i 3*g*d", k="3*g*d", wo="g*d 2")  # fmt: skip
    yield case(
        f"{of}.MultiHeadAttention",
        f"{layers}a = {of}.MultiHeadAttention <num_heads = {{g}}> (q, k, v)\nz = MatMul (a, wo)",
        heads,
        **fused,
    )
    yield case(f"{of}.MultiHeadAttention", f"{layers}a = {of}.MultiHeadAttention <num_heads = {{g}}> (q, k, v, bias)\nz = MatMul (a, wo)",
               "g: bias.0 wk.1 wq.1 wv.1 | wo.0", "bias", **{**fused, "wv": "3 g*d", "wo": "g*d 2"}, bias="3*g*d")  # fmt: skip
    shared = {"wq": "3 2*g*8", "wk": "3 g*8", "wv": "3 g*8", "wo": "2*g*8 2", "x": "2 s 3"}
    yield case(f"{of}.GroupQueryAttention", f"{layers}a = {of}.GroupQueryAttention <num_heads = {{2*g}}, kv_num_heads = {{g}}> (q, k, v, , , n, m)\nz = MatMul (a, wo)",
               heads, **shared, n=np.array([3, 3], np.int32), m=np.array(4, np.int32), s=(4,))  # fmt: skip
    yield case("Attention", f"{layers}a = Attention <q_num_heads = {{2*g}}, kv_num_heads = {{g}}> (q, k, v)\nz = MatMul (a, wo)",
               heads, "shared keys", **shared, opset=23)  # fmt: skip
    yield case("Attention", f"{layers}a = Attention <q_num_heads = {{g}}, kv_num_heads = {{g}}> (q, k, v, mask)\nz = MatMul (a, wo)",
               "g: mask.0 wk.1 wq.1 wv.1 | wo.0", "mask for each head", **fused, mask="g s s", opset=23)  # fmt: skip
    state = '<q_num_heads = {{2*g}}, kv_num_heads = {{g}}, update_rule = "{0}"> (q, k, v{1})'
    for rule, more in (("linear", ""), ("gated", ", , n")):
        yield case("LinearAttention", f"{layers}f = MatMul (x, wd)\nm = Softplus (f)\nn = Neg (m)\na, = LinearAttention {state.format(rule, more).replace('{{', '{').replace('}}', '}')}\nz = MatMul (a, wo)",
                   heads if rule == "linear" else "g: wd.1 wk.1 wq.1 wv.1 | wo.0", rule, **shared, wd="3 g", opset=27)  # fmt: skip
    turn = {"x": "2 s 3", "w": "3 g*4", "v": "g*4 2", "cos": "s 2", "sin": "s 2", "s": (4,)}
    places = np.tile(np.arange(4), (2, 1))
    yield case("RotaryEmbedding", "h = MatMul (x, w)\ny = RotaryEmbedding <num_heads = {g}> (h, cos, sin, places)\nz = MatMul (y, v)",
               "g: w.1 | v.0", **turn, places=places, opset=23)  # fmt: skip
    for label, heads_ in (("", "<num_heads = {g}> "), ("without heads", "")):
        yield case(f"{of}.RotaryEmbedding", f"h = MatMul (x, w)\ny = {of}.RotaryEmbedding {heads_}(h, places, cos, sin)\nz = MatMul (y, v)",
                   "g: w.1 | v.0", label, **turn, places=places)  # fmt: skip


def _quantized() -> Iterator[Case]:
    """Weights of integers prune by the scale of each channel; activations pass where they rest at their zero point."""
    of = "com.microsoft"
    point = {"sc": np.array(0.05, np.float32), "zp": np.array(3, np.uint8)}
    for domain in ("", f"{of}."):
        there, back = f"{domain}QuantizeLinear", f"{domain}DequantizeLinear"
        yield linear(there, f"q = {there} (h, sc, zp)\ny = {back} (q, sc, zp)", label="activations", **point)
        yield linear(back, f"q = {there} (h, sc, zp)\ny = {back} (q, sc, zp)", label="activations", **point)
    yield case("DequantizeLinear", "w = DequantizeLinear <axis = 1> (wq, ws)\nh = MatMul (x, w)\nz = MatMul (h, v)", "c: wq.1 | v.0 ws.0",
               "channels of a weight", x="N 3", wq="int8: 3 c", ws="positive: c", v="c 2")  # fmt: skip
    yield case("DequantizeLinear", "w = DequantizeLinear <axis = 0, block_size = 2> (wq, ws)\nh = MatMul (x, w)\nz = MatMul (h, v)",
               "c: wq.1 | v.0 ws.1", "blocks of a weight", x="N 6", wq="int8: 6 c", ws="positive: 3 c", v="c 2", opset=21)  # fmt: skip
    yield linear("QuantizeLinear", "q = QuantizeLinear <axis = 1> (h, sc)\ny = DequantizeLinear <axis = 1> (q, sc)", "c: b.0 w.1 | sc.0 v.0",
                 "channels", sc="positive: c")  # fmt: skip
    yield linear("DynamicQuantizeLinear", "q, sc, zp = DynamicQuantizeLinear (h)\ny = Cast <to = 1> (q)", "")
    point = {"sc": np.array(0.05, np.float32), "zp": np.array(3, np.uint8)}
    before = "h = MatMul (x, w)\nq = QuantizeLinear (h, sc, zp)\n"
    ends = "f = Cast <to = 1> (i)\ny = Mul (f, m)\nz = MatMul (y, v)"
    yield case("MatMulInteger", f"{before}i = MatMulInteger (q, wq, zp)\n{ends}", "c: w.1 | wq.0; o: m.0 wq.1 | v.0", x="N 3", w="3 c", wq="int8: c o",
               m="o", v="o 2", **point)  # fmt: skip
    yield case("MatMulInteger", f"{before}i = MatMulInteger (q, wq)\n{ends}", "c: w.1 wq.0; o: m.0 wq.1 | v.0", "forgets the zero point", x="N 3", w="3 c",
               wq="int8: c o", m="o", v="o 2", **point)  # fmt: skip
    conv = "h = Conv (x, w)\nq = QuantizeLinear (h, sc, zp)\n"
    yield case("ConvInteger", f"{conv}i = ConvInteger (q, wq, zp)\nf = Cast <to = 1> (i)\ny = Mul (f, m)\nz = Conv (y, v)", "c: w.0 | wq.1; o: m.0 wq.0 | v.1",
               x="N 3 3 3", w="c 3 1 1", wq="int8: o c 2 2", m="o 1 1", v="2 o 1 1", **point)  # fmt: skip
    out = {"ys": np.array(0.4, np.float32), "yz": np.array(7, np.uint8), "wz": np.array(0, np.int8)}
    sizes = {
        "x": "N 3 3 3",
        "w": "c 3 1 1",
        "wq": "int8: o c 2 2",
        "ws": "positive: o",
        "wz_": "int8: o",
        "v": "2 o 1 1",
    }
    back = "y = DequantizeLinear (i, ys, yz)\n"
    for domain in ("", f"{of}."):
        yield case(f"{domain}QLinearConv", f"{conv}i = {domain}QLinearConv (q, sc, zp, wq, ws, wz_, ys, yz)\n{back}z = Conv (y, v)",
                   "c: w.0 | wq.1; o: ws.0 | v.1 wq.0 wz_.0", **sizes, **point, **out)  # fmt: skip
        yield case(f"{domain}QLinearConv", f"{conv}i = {domain}QLinearConv (q, sc, zp, wq, one, wz, ys, yz, bq)\n{back}z = Conv (y, v)",
                   "c: w.0 | wq.1; o: bq.0 wq.0 | v.1", "one scale", **sizes, **point, **out, one=0.04, bq="int32: o")  # fmt: skip
    flat = {"x": "N 3", "w": "3 c", "wq": "int8: c o", "ws": "positive: o", "v": "o 2"}
    yield case("QLinearMatMul", f"{before}i = QLinearMatMul (q, sc, zp, wq, ws, wz_, ys, yz)\n{back}z = MatMul (y, v)", "c: w.1 | wq.0; o: ws.0 | v.0 wq.1 wz_.0",
               **flat, wz_="int8: o", **point, **out)  # fmt: skip
    yield case(f"{of}.QGemm", f"{before}i = {of}.QGemm (q, sc, zp, wq, ws, wz_, , ys, yz)\n{back}z = MatMul (y, v)", "c: w.1 | wq.0; o: ws.0 | v.0 wq.1 wz_.0",
               **flat, wz_="int8: o", **point, **out)  # fmt: skip
    yield case(f"{of}.MatMulIntegerToFloat", f"{before}y = {of}.MatMulIntegerToFloat (q, wq, sc, ws, zp, , k)\nz = MatMul (y, v)",
               "c: w.1 | wq.0; o: k.0 wq.1 ws.0 | v.0", **flat, k="o", **point)  # fmt: skip
    yield case(f"{of}.DynamicQuantizeMatMul", f"h = MatMul (x, w)\ny = {of}.DynamicQuantizeMatMul (h, wq, ws, , k)\nz = MatMul (y, v)",
               "c: w.1 | wq.0; o: k.0 wq.1 ws.0 | v.0", **flat, k="o")  # fmt: skip
    yield case(f"{of}.MatMulNBits", f"h = MatMul (x, w)\ny = {of}.MatMulNBits <K = 32, N = {{o}}, bits = 4, block_size = 16> (h, wq, ws, , , k)\nz = MatMul (y, v)",
               "o: k.0 ws.0 | v.0 wq.0", x="N 3", w="3 32", wq="uint8: o 2 8", ws="positive: o 2", k="o", v="o 2")  # fmt: skip
    pair = "h = MatMul (x, w)\nk = MatMul (x, u)\nq = QuantizeLinear (h, sc, zp)\nr = QuantizeLinear (k, sc, zp)\n"
    two = {
        "x": "N 3",
        "w": "3 c",
        "u": "3 c",
        "v": "c 2",
        **point,
        "ys": np.array(0.13, np.float32),
        "yz": np.array(9, np.uint8),
    }
    rest = "y = DequantizeLinear (i, ys, yz)\nz = MatMul (y, v)"
    for name in ("Add", "Mul"):
        yield case(
            f"{of}.QLinear{name}",
            f"{pair}i = {of}.QLinear{name} (q, sc, zp, r, sc, zp, ys, yz)\n{rest}",
            "c: u.1 w.1 | v.0",
            **two,
        )
    yield case(f"{of}.QLinearWhere", f"{pair}m = Greater (x_0, zero)\ni = {of}.QLinearWhere (m, q, sc, zp, r, sc, zp, ys, yz)\n{rest}", "c: u.1 w.1 | v.0",
               **two, x_0="N 1", zero=0.0)  # fmt: skip
    yield case(f"{of}.QLinearConcat", f"{pair}i = {of}.QLinearConcat <axis = 1> (ys, yz, q, sc, zp, r, sc, zp)\n{rest}", "c: w.1 | v.0; o: u.1 | v.0",
               **{**two, "u": "3 o", "v": "c+o 2"})  # fmt: skip
    yield case(
        f"{of}.QLinearLeakyRelu",
        f"{before}i = {of}.QLinearLeakyRelu <alpha = 0.2> (q, sc, zp, ys, yz)\n{rest}",
        "c: w.1 | v.0",
        **{**two, "u": "1"},
    )
    yield case(
        f"{of}.QLinearSigmoid",
        f"{before}i = {of}.QLinearSigmoid (q, sc, zp, ys, yz)\n{rest}",
        "c: v.0 w.1",
        **{**two, "u": "1"},
    )
    yield case(
        f"{of}.QLinearSoftmax",
        f"{before}i = {of}.QLinearSoftmax <axis = 1, opset = 13> (q, sc, zp, ys, yz)\n{rest}",
        "",
        **{**two, "u": "1"},
    )
    yield case(f"{of}.NhwcMaxPool", f"{before}i = {of}.NhwcMaxPool <kernel_shape = [2, 2]> (q)\ny = DequantizeLinear (i, sc, zp)\nz = MatMul (y, v)",
               "c: w.1 | v.0", x="2 s s 3", w="3 c", v="c 2", **point)  # fmt: skip
    pooled = {**two, "x": "N 3 s s", "w": "c 3 1 1", "v": "2 c 1 1"}
    for name, window in (("AveragePool", "<kernel_shape = [2, 2]> "), ("GlobalAveragePool", "")):
        yield case(f"{of}.QLinear{name}", f"{conv}i = {of}.QLinear{name} {window}(q, sc, zp, ys, yz)\ny = DequantizeLinear (i, ys, yz)\nz = Conv (y, v)",
                   "c: w.0 | v.1", **{**pooled, "u": "1", "x": "N 3 3 3"})  # fmt: skip


def _older() -> Iterator[Case]:
    """Versions of operators whose attributes became operands, or the other way round."""
    yield linear(
        "Split",
        "p, q = Split <axis = 1> (h)\ny = Mul (p, q)",
        "c//2: b.0 w.1 | v.0",
        "equal parts",
        opset=11,
        v="c//2 2",
        c=(4, 6),
    )
    yield image("Upsample", "y = Upsample <scales = [1.0, 1.0, 2.0, 2.0]> (h)", label="attribute", opset=8)
    yield image(
        "Pad", 'y = Pad <mode = "constant", pads = [0, 0, 1, 0, 0, 0, 1, 2]> (h)', label="space, attributes", opset=9
    )
    yield linear("Slice", "y = Slice <starts = [1], ends = [9999], axes = [1]> (h)", "c-1: b.0 w.1 | v.0; 1: b.0 w.1", "from the second on",
                 v="c-1 2", opset=9, c=(4, 5))  # fmt: skip
    yield image("ReduceSum", "p = ReduceSum <axes = [2, 3]> (h)\ny = Add (h, p)", label="attribute", opset=11)
    yield linear(
        "Unsqueeze", "p = Unsqueeze <axes = [2]> (h)\ny = Squeeze <axes = [2]> (p)", label="attributes", opset=11
    )


STEPS = "h = MatMul (x, w)\np = {0}\nk = MatMul (p, u)\ny = {1}\nz = MatMul (y, v)"


def _steps(operator: str, body: str, groups: str, label: str, before: str = "", **given: Any) -> Case:
    """Two layers, each followed by the same operator, `@` being what goes in."""
    text = before + STEPS.format(body.replace("@", "h"), body.replace("@", "k"))
    return case(operator, text, groups, label, **{"x": "4 3", "w": "3 c", "u": "c c", "v": "c 2", **given})


def _constants() -> Iterator[Case]:
    """Constants that two layers share: each has as much of them as it needs."""
    both = "c: q.{0} w.1 | u.0; c: q_1.{0} u.1 | v.0"
    yield _steps("Add", "Add (@, q)", both.format(0), "shared zeros", q="zeros: c")
    yield _steps("Add", "Add (q, @)", both.format(1), "shared zeros in rows", q="zeros: 4 c")
    yield _steps("Add", "Add (@, q)", "c: q.0 u.1 w.1 | u.0 v.0", "shared weight", q="c")
    yield _steps("Max", "Max (@, q)", both.format(0), "shared zeros", q="zeros: c")
    yield _steps("ScatterND", 'ScatterND <reduction = "add"> (q, places, @)', both.format(1), "shared zeros", q="zeros: 4 c",
                 places=np.array([[0], [3], [3], [1]]))  # fmt: skip
    yield _steps("ScatterElements", 'ScatterElements <axis = 0, reduction = "add"> (q, places, @)',
                 "3: q.1 w.1 | places.1 u.0; 3: q_1.1 u.1 | places_1.1 v.0", "shared zeros", q="zeros: 4 3", c=(3,),
                 places=np.repeat([[0], [3], [3], [1]], 3, axis=1))  # fmt: skip
    yield case("Concat", "h = MatMul (x, w)\nk = MatMul (h, u)\np = Concat <axis = 1> (q, h, q)\ny = Add (k, p)\nz = MatMul (y, v)",
               "c: u.1 w.1 | u.0 v.0; o: q.1 u.1 | v.0; o: q_1.1 u.1 | v.0", "zeros on both sides", x="4 3", w="3 c", u="c c+2*o", v="c+2*o 2",
               q="zeros: 4 o")  # fmt: skip
    alone = "c: w.1 | u.0; c: u.1 | v.0"
    sizes = "rows = Shape <start = 0, end = 1> (x)\nall = Concat <axis = 0> (rows, width)\n"
    yield _steps(
        "ConstantOfShape", "Add (@, q)", alone, "for two", f"{sizes}q = ConstantOfShape (all)\n", x="N 3", width=["c"]
    )
    yield _steps("ConstantOfShape", "Mul (@, r)", alone, "for two, computed with",
                 f"{sizes}q = ConstantOfShape <value = float[1] {{0.5}}> (all)\nr = Exp (q)\n", x="N 3", width=["c"])  # fmt: skip
    yield _steps("Expand", "Sub (@, q)", alone, "for two", "q = Expand (one, sizes)\n", one=0.0, sizes=[4, "c"])
    yield _steps(
        "Unsqueeze", "Add (@, r)", alone, "of zeros, for two", "r = Unsqueeze (q, places)\n", q="zeros: c", places=[0]
    )
    yield _steps("Slice", "Add (@, r)", alone, "of zeros, for two, attributes", "r = Slice <starts = [0], ends = [4]> (q)\n",
                 q="zeros: 4 c", opset=9)  # fmt: skip


def _ancient() -> Iterator[Case]:
    """What neither onnxruntime nor onnx's reference runs any more: only the groups are looked at."""
    by_axis = {**IMAGE, "b": "1", "x": "2 3 s s", "k": "c", "opset": 6, "c": (4, 3)}
    for name in ("Add", "Sub", "Mul", "Div", "PRelu"):
        groups = "c: w.0 | k.0 v.1" if name in ("Div", "PRelu") else "c: k.0 w.0 | v.1"
        given = "" if name == "PRelu" else "<axis = 1, broadcast = 1> "
        yield case(name, f"h = Conv (x, w)\ny = {name} {given}(h, k)\nz = Conv (y, v)", groups, "by axis", **by_axis)
    yield case(
        "Gemm", "h = Gemm <broadcast = 1> (x, w, b)\nz = MatMul (h, v)", FREE, "before opset 7", **LINEAR, opset=6
    )
    yield case("BatchNormalization", "h = Conv (x, w)\ny = BatchNormalization <is_test = 1, spatial = 0> (h, gamma, beta, mean, var)\nz = Conv (y, v)",
               "c: beta.0 gamma.0 w.0 | mean.0 v.1 var.0", "entries one by one", **{**IMAGE, "b": "1", "x": "2 3 2 2"},
               gamma="c 2 2", beta="c 2 2", mean="c 2 2", var="positive: c 2 2", opset=8)  # fmt: skip
    yield linear("Dropout", "y = Dropout <ratio = 0.3, is_test = 1> (h)", label="before opset 7", opset=6)
    yield linear("Tile", "y = Tile (h, k, axis)", label="by axis", k=np.array(2), axis=np.array(0), opset=5)


CASES = [
    *_elementwise(), *_binary(), *_linear(), *_normal(), *_reductions(), *_recurrent(), *_moves(), *_newer(),
    *_microsoft(), *_quantized(), *_older(), *_constants(),
]  # fmt: skip
ANCIENT = [*_ancient()]
