"""The update in C: Adam, AdamW, SGD, RMSprop and Adagrad as PyTorch has them, on state that stays the optimizer's."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vivace.codegen.arrays import Read
from vivace.codegen.lowering import Rounded
from vivace.codegen.statements import ROWS, SIMD, Statement
from vivace.core.errors import NotApplicable
from vivace.training.native.leaves import Leaf

NUMBERS = 7
"""Numbers of each parameter that C is given: rate, beta 1 (momentum), beta 2, epsilon, decay, sign, steps before."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """How the parameters of one group are updated, as far as C must know it. `state` names the optimizer's tensors."""

    kind: str
    state: tuple[str, ...]
    decoupled: bool = False
    nesterov: bool = False


def rule_of(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> Rule:
    """The rule of a group. Raises NotApplicable for optimizers and settings that have none here."""
    kind = type(optimizer)
    if group.get("differentiable") or group.get("capturable"):
        raise NotApplicable("the optimizer is differentiable or capturable, which no compiled update is")
    if kind in (torch.optim.Adam, torch.optim.AdamW):
        state = ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if group["amsgrad"] else ()))
        return Rule("adam", state, decoupled=bool(group["decoupled_weight_decay"]))
    if kind is torch.optim.SGD:
        if group["dampening"]:
            raise NotApplicable("the optimizer dampens its momentum, for which there is no compiled update")
        return Rule("sgd", ("momentum_buffer",) if group["momentum"] else (), nesterov=bool(group["nesterov"]))
    if kind is torch.optim.RMSprop:
        centred, heavy = ("grad_avg",) if group["centered"] else (), ("momentum_buffer",) if group["momentum"] else ()
        return Rule("rmsprop", ("square_avg", *centred, *heavy))
    if kind is torch.optim.Adagrad and not group["lr_decay"]:
        return Rule("adagrad", ("sum",))
    raise NotApplicable(
        f"{kind.__name__} as it is set has no compiled update; there is one for Adam, AdamW, SGD, RMSprop and Adagrad"
    )


def numbers_of(rule: Rule, group: Mapping[str, Any], state: Mapping[str, Any]) -> list[float]:
    """What C is given for a parameter."""
    sign = -1.0 if group["maximize"] else 1.0
    if rule.kind == "sgd":
        return [float(group["lr"]), float(group["momentum"]), 0.0, 0.0, float(group["weight_decay"]), sign, 0.0]
    if rule.kind in ("rmsprop", "adagrad"):
        heavy, keeps = float(group.get("momentum", 0.0)), float(group.get("alpha", 0.0))
        return [float(group["lr"]), heavy, keeps, group["eps"], float(group["weight_decay"]), sign, 0.0]
    first, second = group["betas"]
    taken = float(state["step"])
    return [float(group["lr"]), float(first), float(second), group["eps"], group["weight_decay"], sign, taken]


def begin(optimizer: torch.optim.Optimizer, rule: Rule, parameter: Tensor) -> None:
    """Give a parameter the state that the optimizer's own first step gives it, where it has none."""
    state = optimizer.state[parameter]
    if rule.kind != "sgd" and "step" not in state:
        state["step"] = torch.tensor(0.0, dtype=torch.float32)
    for name in rule.state:
        if state.get(name) is None:  # momentum of zero, and a decayed gradient added to it, is that gradient
            state[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)


def statement(
    rule: Rule, number: int, leaf: Leaf, parameter: str, gradient: str, copy: Rounded | None = None
) -> Statement:
    """The update of parameter `number`, row by row; its state is in arrays named after it. `copy` is one in
    bfloat16, which is kept in step."""
    rows, inner = leaf.matrix
    names = [f"{parameter}_{name}" for name in rule.state]
    body = _BODIES[rule.kind](rule, parameter, gradient, names)
    walk = f"for (long e = from*{inner}; e < to*{inner}; e++) {{"
    copied = ""
    if copy is not None:
        walk = f"for (long c = 0; c < {inner}; c++) {{ const long e = r*{inner} + c;"
        copied = f" {copy.to.name}[r*{copy.to.strides[0]} + c] = narrow(p);"
    text = (
        f"  {{ {ROWS} const Numbers &n = n{number};\n"
        f"    {'' if copy is None else 'for (long r = from; r < to; r++) '}"
        f"{SIMD}{walk}\n"
        f"      float g = n.sign * {gradient}[e], p = {parameter}[e];\n{body}\n      {parameter}[e] = p;{copied} }} }}"
    )
    own = rows if rows > 1 else None
    first, *others = (Read(one, own, inner) for one in (gradient, parameter, *names))
    if copy is not None:
        others += copy.statement.writes
    return Statement(text, (first, others[0]), tuple(others), rows)


def _adam(rule: Rule, parameter: str, gradient: str, names: Sequence[str]) -> str:
    first, second, *highest = names
    decay = "      p -= n.rate * n.decay * p;" if rule.decoupled else "      g += n.decay * p;"
    lines = [
        decay,
        f"      const float m = {first}[e] + n.first_less * (g - {first}[e]);",
        f"      float v = n.second * {second}[e] + n.second_less * g * g;",
        f"      {first}[e] = m; {second}[e] = v;",
        *(f"      v = {one}[e] > v ? {one}[e] : v; {one}[e] = v;" for one in highest),
        "      p -= n.size * m / (__builtin_sqrtf(v) * n.root + n.epsilon);",
    ]
    return "\n".join(lines)


def _sgd(rule: Rule, parameter: str, gradient: str, names: Sequence[str]) -> str:
    lines = ["      g += n.decay * p;"]
    for one in names:
        lines.append(f"      const float m = n.first * {one}[e] + g; {one}[e] = m;")
        lines.append("      g += n.first * m;" if rule.nesterov else "      g = m;")
    return "\n".join([*lines, "      p -= n.rate * g;"])


def _rmsprop(rule: Rule, parameter: str, gradient: str, names: Sequence[str]) -> str:
    square, *others = names
    lines = [
        "      g += n.decay * p;",
        f"      float v = n.second * {square}[e] + n.second_less * g * g; {square}[e] = v;",
    ]
    if "grad_avg" in rule.state:
        mean = others.pop(0)
        lines.append(f"      const float a = {mean}[e] + n.second_less * (g - {mean}[e]); {mean}[e] = a; v -= a * a;")
    lines.append("      g /= __builtin_sqrtf(v) + n.epsilon;")
    lines += [f"      g += n.first * {one}[e]; {one}[e] = g;" for one in others]
    return "\n".join([*lines, "      p -= n.rate * g;"])


def _adagrad(rule: Rule, parameter: str, gradient: str, names: Sequence[str]) -> str:
    lines = ["      g += n.decay * p;", f"      const float v = {names[0]}[e] + g * g; {names[0]}[e] = v;"]
    return "\n".join([*lines, "      p -= n.rate * g / (__builtin_sqrtf(v) + n.epsilon);"])


_BODIES = {"adam": _adam, "sgd": _sgd, "rmsprop": _rmsprop, "adagrad": _adagrad}

TEXT = """
struct Numbers { float rate, first, first_less, second, second_less, epsilon, decay, sign, size, root; };
static const double *numbers;
static inline Numbers numbers_of(long which, long s) {
  const double *n = numbers + which*NUMBERS;
  const double taken = n[6] + (double)s + 1.0;
  const double one = 1.0 - pow(n[1], taken), two = 1.0 - pow(n[2], taken);
  return {(float)n[0], (float)n[1], (float)(1.0 - n[1]), (float)n[2], (float)(1.0 - n[2]), (float)n[3], (float)n[4],
          (float)n[5], (float)(n[0] / one), (float)(1.0 / sqrt(two > 0 ? two : 1.0))};
}
"""
