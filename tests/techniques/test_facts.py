"""Which techniques go together, and what the report says when they do not."""

import pytest

from vivace.core.facts import Fact
from vivace.core.plan import Plan
from vivace.core.registry import techniques
from vivace.search.rank import compiler_of

ON_MODEL = {
    *(Fact.TORCH_GRAPH, Fact.ONNX_READY, Fact.OPENVINO_READY, Fact.RUNNABLE, Fact.FLOAT32, Fact.UNQUANTIZED),
    *(Fact.UNCOMPILED, Fact.ON_CPU, Fact.HAS_CONV2D, Fact.HAS_LINEAR, Fact.HAS_CONV_BATCHNORM, Fact.CALIBRATION),
}
ON_CPU = ON_MODEL | {Fact.BF16_INSTRUCTIONS, Fact.INT8_INSTRUCTIONS, Fact.CXX_COMPILER}
ON_GPU = ON_CPU | {Fact.CUDA_DEVICE, Fact.CUDA_BF16}
SETTINGS = {"threads": {"count": 2}}


def _illegal(names, facts):
    kinds = techniques()
    return Plan.of(kinds[name](**SETTINGS.get(name, {})) for name in names.split()).illegal(frozenset(facts))


@pytest.mark.parametrize(
    "names",
    [
        "inference-mode",
        "threads",
        "fold-conv-batchnorm channels-last inference-mode threads",
        "fold-conv-batchnorm bfloat16 inductor",
        "torchao-dynamic-int8 inductor",
        "fold-conv-batchnorm onnx-runtime threads",
        "onnx-static-int8 onnx-runtime",
        "onnx-dynamic-int8 onnx-runtime threads",
        "openvino-bfloat16 openvino",
        "nncf-static-int8 openvino",
        "nncf-static-int8 openvino-bfloat16 openvino threads",
        "openvino-weight-only openvino-bfloat16 openvino",
        "onnx-weight-only onnx-runtime threads",
        "torchao-weight-only-int8 inductor",
        "magnitude-pruning sparse-kernels inference-mode threads",
        "channel-pruning low-rank onnx-static-int8 onnx-runtime",
        "channel-pruning recovery nncf-static-int8 openvino threads",
        "magnitude-pruning recovery sparse-kernels inference-mode",
    ],
)
def test_what_belongs_together_is_legal_on_a_processor(names):
    assert _illegal(names, ON_CPU) is None


@pytest.mark.parametrize(
    "names",
    [
        "cuda",
        "float16 cuda",
        "tf32 inductor cuda",
        "cuda-bfloat16 cuda cuda-graphs",
        "tf32 inductor cuda cuda-graphs",
        "channels-last inference-mode cuda",
    ],
)
def test_what_belongs_together_is_legal_on_a_card(names):
    assert _illegal(names, ON_GPU) is None


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (
            "inductor onnx-runtime",
            "onnx-runtime needs a program that can be written as ONNX, which inductor took away",
        ),
        ("bfloat16 openvino", "openvino needs a program that OpenVINO can read, which bfloat16 took away"),
        ("bfloat16 torchao-dynamic-int8", "needs float32 arithmetic, which bfloat16 took away"),
        ("onnx-static-int8", "needs a later technique that can run its program"),
        ("openvino-bfloat16", "needs a later technique that can run its program"),
        ("onnx-static-int8 openvino", "openvino needs a program that OpenVINO can read, which onnx-static-int8"),
        ("nncf-static-int8 onnx-runtime", "needs a program that can be written as ONNX, which nncf-static-int8"),
        ("onnx-dynamic-int8 inference-mode", "inference-mode needs a program that is still a PyTorch graph, which"),
        ("cuda", "cuda needs a CUDA device"),
        ("sparse-kernels", "needs linear weights that are mostly zeros (prune the model, or add magnitude-pruning)"),
        ("recovery onnx-runtime", "recovery needs weights that were pruned (add channel-pruning, low-rank or"),
        ("magnitude-pruning sparse-kernels openvino", "OpenVINO can read, which sparse-kernels"),
        ("aot-inductor", "needs permission to produce native code (--native, native=True)"),
        ("fold-linear-batchnorm", "needs a linear layer followed by batch normalization"),
    ],
)
def test_what_does_not_go_together_is_told_in_a_sentence(names, told):
    assert told in _illegal(names, ON_CPU)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ("float16", "float16 needs a later technique that can run its program"),
        ("float16 threads cuda", "needs the program to be on the CPU, which float16 took away"),
        ("torchao-dynamic-int8 cuda", "cuda needs weights that are not quantized yet, which torchao-dynamic-int8"),
        ("onnx-runtime cuda", "cuda needs a program that is still a PyTorch graph, which onnx-runtime took away"),
        ("inductor cuda-graphs", "cuda-graphs needs the program to be on a CUDA device"),
        ("inference-mode cuda cuda-graphs", "computes in inference mode already, so inference-mode adds nothing"),
    ],
)
def test_what_does_not_go_together_on_a_card_is_told_in_a_sentence(names, told):
    assert told in _illegal(names, ON_GPU)


def test_a_graph_of_a_card_is_a_kind_of_its_own_for_a_search_with_and_without_a_compiler():
    def kind(names):
        return compiler_of(Plan.of(techniques()[name]() for name in names.split()))

    kinds = ["cuda", "inductor cuda", "cuda cuda-graphs", "inductor cuda cuda-graphs"]
    assert [kind(names) for names in kinds] == ["", "inductor", "cuda-graphs", "inductor + cuda-graphs"]
