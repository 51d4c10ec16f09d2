"""What a program written out as C++ fused: each product with the layers whose work it does before it is stored."""

from __future__ import annotations

from vivace.core.layer import Fused
from vivace.core.program import Model
from vivace.runtimes.graphs.layers import names_of
from vivace.runtimes.inductor import example_of
from vivace.runtimes.native.session import written


def groups(model: Model) -> list[Fused]:
    """The products that do the work of several layers. Writes the program out, and compiles nothing."""
    program = written(model, [leaf.contiguous() for leaf in example_of(model)])[0]
    nodes = {node.name: node for node in model.program.graph.nodes}
    found = []
    for members in program.products:
        layers = names_of([nodes[name] for name in members if name in nodes])
        if len(layers) > 1:
            found.append(Fused("product", layers))
    return found
