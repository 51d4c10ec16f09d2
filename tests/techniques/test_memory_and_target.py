"""Layout, inference mode, threads and device: what they change and what they refuse."""

import pytest
import torch

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable, UsageError
from vivace.core.machine import Machine
from vivace.core.program import Form
from vivace.core.work import Work
from vivace.data import samples
from vivace.runtimes import capture, store
from vivace.techniques.compile.aot_inductor import AotInductor
from vivace.techniques.compile.inductor import Inductor
from vivace.techniques.memory.channels_last import ChannelsLast
from vivace.techniques.memory.inference_mode import InferenceMode
from vivace.techniques.parallel.instances import Instances
from vivace.techniques.parallel.threads import Threads
from vivace.techniques.target.cuda import Cuda
from vivace.techniques.target.cuda_graphs import CudaGraphs
from vivace.testing import tiny


@pytest.fixture
def mlp():
    model = tiny.tiny("mlp")
    return capture.capture(model.model(), model.inputs()).model


def _machine(cores):
    return Machine("any", "x86_64", (), cores, 64, 1 << 30, "Linux")


def _work(flops):
    return Work("any", None, frozenset(), Cost(flops, 1, 1, 1), None)


def test_convolution_weights_are_channels_last_after_a_reload(tmp_path):
    model = tiny.tiny("residual")
    changed = ChannelsLast().apply(capture.capture(model.model(), model.inputs()).model, None)

    store.save(changed, tmp_path / "program")
    program = store.read_model(tmp_path / "program").program

    convolutions = [n for n in program.graph.nodes if n.target is torch.ops.aten.conv2d.default]
    weights = [node.args[1].meta["val"] for node in convolutions]
    assert len(weights) == 3
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    assert all(node.meta["val"].is_contiguous(memory_format=torch.channels_last) for node in convolutions)


def test_an_image_that_is_answered_comes_back_in_the_plain_layout():
    module = torch.nn.Conv2d(3, 4, 3).eval()
    image = torch.randn(2, 3, 8, 8)
    model = ChannelsLast().apply(capture.capture(module, (image,)).model, None)

    answer = model.program.graph.output_node().args[0][0].meta["val"]

    assert answer.is_contiguous()


def test_a_model_without_images_cannot_be_channels_last(mlp):
    with pytest.raises(NotApplicable, match="no two-dimensional convolution"):
        ChannelsLast().apply(mlp, None)


def test_inference_mode_reaches_the_answers(mlp, tmp_path):
    store.save(InferenceMode().apply(mlp, None), tmp_path / "program")

    answer = store.load(tmp_path / "program")(*tiny.tiny("mlp").inputs())

    assert answer.is_inference()


def test_inference_mode_twice_says_that_it_changes_nothing(mlp):
    with pytest.raises(NotApplicable, match="already"):
        InferenceMode().apply(InferenceMode().apply(mlp, None), None)


@pytest.mark.parametrize(("cores", "counts"), [(1, [1]), (2, [2, 1]), (6, [6, 4, 2, 1]), (8, [8, 4, 2, 1])])
def test_thread_counts_never_exceed_the_cores_allowed(cores, counts):
    offered = Threads.variants(_work(1e12), _machine(cores))

    assert [technique.count for technique in offered] == counts


def test_small_work_tries_one_thread_first():
    assert next(iter(Threads.variants(_work(1e5), _machine(8)))) == Threads(1)


@pytest.mark.parametrize("count", [0, -1, True, 2.0, "2"])
def test_an_impossible_number_of_threads_is_refused(count):
    with pytest.raises(UsageError, match="1 or more"):
        Threads(count)


def test_threads_are_a_setting_of_the_program_only(mlp):
    changed = Threads(2).apply(mlp, None)

    assert (changed.settings.threads, changed.program, changed.lineage) == (2, mlp.program, mlp.lineage)


def test_freezing_refuses_to_repeat_inference_mode(mlp):
    with pytest.raises(NotApplicable, match="imply"):
        Inductor(freeze=True).apply(InferenceMode().apply(mlp, None), None)


def test_native_code_refuses_inference_mode(mlp, tmp_path):
    with pytest.raises(NotApplicable, match="native code"):
        AotInductor().apply(InferenceMode().apply(mlp, None), None)


def test_a_cuda_graph_is_of_calls_on_a_card(mlp):
    with pytest.raises(NotApplicable, match="on cpu starts no kernels"):
        CudaGraphs().apply(mlp, None)

    changed = CudaGraphs().apply(Cuda().apply(mlp, None), None)

    assert (changed.settings.cuda_graph, changed.settings.inference_mode, changed.form) == (True, True, Form.TORCH)
    with pytest.raises(NotApplicable, match="recorded already"):
        CudaGraphs().apply(changed, None)


def test_cuda_is_a_place_of_the_same_program(mlp):
    changed = Cuda().apply(mlp, None)

    assert (changed.settings.device, changed.program) == ("cuda:0", mlp.program)


def test_an_onnx_program_cannot_be_moved_to_cuda(mlp):
    with pytest.raises(NotApplicable, match="onnx"):
        Cuda().apply(mlp.replace(form=Form.ONNX), None)


@pytest.mark.gpu
def test_a_program_on_cuda_answers_as_on_the_processor(mlp, tmp_path):
    model = tiny.tiny("mlp")
    store.save(Cuda().apply(mlp, None), tmp_path / "program")

    answer = store.load(tmp_path / "program")(*model.inputs())

    torch.testing.assert_close(answer.cpu(), model.model()(*model.inputs()), rtol=1e-4, atol=1e-5)


def test_instances_share_the_threads(mlp, tmp_path):
    work = _work(1e9)
    work = Work(**{**vars(work), "cost": work.cost.replace(threads=8)})
    changed = Instances(4).apply(mlp, work)

    assert (changed.settings.instances, changed.settings.threads) == (4, 2)


def test_instances_leave_threads_that_were_chosen(mlp):
    changed = Instances(2).apply(Threads(1).apply(mlp, None), _work(1e9))

    assert (changed.settings.instances, changed.settings.threads) == (2, 1)


def test_instances_are_offered_where_a_batch_can_be_split_only(mlp, tmp_path):
    leaves = [torch.zeros(*(4 if size is None else size for size in spec.shape)) for spec in mlp.signature.inputs]
    example = samples.write(tmp_path / "example", [leaves], mlp.signature.call, mlp.signature.positional)
    work = Work("mlp", mlp.signature, frozenset(), Cost(1e9, 1, 1, 1), tmp_path, example=example)

    assert list(Instances.variants(work, _machine(8))) == [Instances(4)]
    assert list(Instances.variants(work, _machine(2))) == [Instances(2)]
    assert list(Instances.variants(work, _machine(1))) == []
    assert list(Instances.variants(Work(**{**vars(work), "cost": Cost(1e3, 1, 1, 1)}), _machine(2))) == []


@pytest.mark.parametrize("count", [1, 0, True, 2.5])
def test_an_impossible_number_of_instances_is_refused(count):
    with pytest.raises(UsageError, match="2 or more"):
        Instances(count)
