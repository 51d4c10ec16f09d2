"""The arithmetic of the original's layers, at the operators of the winner that do it; nothing where that is a guess."""

from __future__ import annotations

from vivace.core.compute import OperatorTime, Profile
from vivace.search.account.served import with_served_flops

ORIGINAL = Profile(
    "torch",
    1.0,
    (
        OperatorTime("conv2d", ("stem.0",), 0.5, 100.0, 10.0),
        OperatorTime("batch_norm", ("stem.1",), 0.1, 0.0, 10.0),
        OperatorTime("add", ("add",), 0.1, 0.0, 10.0),
        OperatorTime("linear", ("attention",), 0.1, 30.0, 10.0),
        OperatorTime("linear", ("attention",), 0.1, 12.0, 10.0),
        OperatorTime("linear", ("head",), 0.1, 7.0, 10.0),
    ),
)


def served(*operators: tuple[str, tuple[str, ...]], own: float | None = None) -> list[float | None]:
    ran = tuple(OperatorTime(kind, layers, 0.1, own) for kind, layers in operators)
    return [one.flops for one in with_served_flops(Profile("engine", 1.0, ran), ORIGINAL).operators]


def test_an_operator_does_the_work_of_all_its_layers() -> None:
    assert served(("Convolution", ("stem.0", "stem.1", "add_45")), ("Gemm", ("head",))) == [100.0, 7.0]


def test_of_several_operators_for_a_layer_the_one_that_computes_products_does_them() -> None:
    assert served(("QuantizeLinear", ("head",)), ("QGemm", ("head",)), ("Add", ("head",))) == [0.0, 7.0, 0.0]


def test_where_several_could_do_a_layers_products_it_is_not_known() -> None:
    assert served(("MatMul", ("attention",)), ("MatMul", ("attention",)), ("Softmax", ("attention",))) == [
        None,
        None,
        0.0,
    ]


def test_one_operator_for_a_layer_of_several_products_does_all_of_them() -> None:
    assert served(("Subgraph", ("attention",))) == [42.0]


def test_what_an_engine_does_not_name_or_names_otherwise_is_not_known() -> None:
    assert served(("Kernel", ()), ("MatMul", ("quantized_7",)), ("Kernel", ("block/matmul_2",))) == [None, None, None]
    assert served(("Relu", ("relu_7",))) == [0.0]


def test_what_was_counted_in_the_winners_own_graph_stays() -> None:
    assert served(("linear", ("head",)), ("linear", ("head",)), own=3.0) == [3.0, 3.0]
    assert served(("_int_mm", ("head",)), ("mul", ("head",)), own=0.0) == [7.0, 0.0]


def test_an_original_that_was_not_counted_gives_nothing() -> None:
    blank = Profile("onnx", 1.0, (OperatorTime("Gemm", ("head",), 0.1),))

    (found,) = with_served_flops(blank, blank).operators

    assert found.flops is None
