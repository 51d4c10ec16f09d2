"""Folding equals PyTorch's own fusion of the same modules, and leaves alone what it must not touch."""

import pytest
import torch
from torch import nn
from torch.nn.utils import fusion

from vivace.core.errors import NotApplicable
from vivace.runtimes import capture, eager
from vivace.techniques.rewrite.fold_conv_batchnorm import FoldConvBatchnorm
from vivace.techniques.rewrite.fold_linear_batchnorm import FoldLinearBatchnorm
from vivace.testing import tiny


def _folded(technique, module, *inputs):
    return technique.apply(capture.capture(module, inputs).model, None).program


def _operators(program):
    return [node.target for node in program.graph.nodes if node.op == "call_function"]


def test_a_folded_convolution_has_the_weights_of_pytorchs_own_fusion():
    module = tiny.tiny("conv-batchnorm").model()
    expected = fusion.fuse_conv_bn_eval(module[0], module[1])

    program = _folded(FoldConvBatchnorm(), module, torch.randn(4, 3, 8, 8))

    weight, bias = program.state_dict["module.0.weight"], program.state_dict["module.0.bias"]
    torch.testing.assert_close(weight, expected.weight)
    torch.testing.assert_close(bias, expected.bias)
    assert torch.ops.aten.batch_norm.default not in _operators(program)


def test_a_folded_linear_layer_has_the_weights_of_pytorchs_own_fusion():
    module = tiny.tiny("linear-batchnorm").model()
    expected = fusion.fuse_linear_bn_eval(module[0], module[1])

    program = _folded(FoldLinearBatchnorm(), module, torch.randn(4, 16))

    torch.testing.assert_close(program.state_dict["module.0.weight"], expected.weight)
    torch.testing.assert_close(program.state_dict["module.0.bias"], expected.bias)


def test_a_convolution_without_a_bias_gets_one():
    module = tiny.tiny("residual").model()
    image = torch.randn(4, 3, 8, 8)

    program = _folded(FoldConvBatchnorm(), module, image)

    folded = [name for name in program.state_dict if name.endswith("folded_bias")]
    assert len(folded) == 1
    torch.testing.assert_close(eager.run_flat(program, [image])[0], module(image))


def test_the_model_that_was_given_keeps_its_weights():
    module = tiny.tiny("conv-batchnorm").model()
    model = capture.capture(module, (torch.randn(4, 3, 8, 8),)).model
    before = {name: value.clone() for name, value in model.program.state_dict.items()}

    FoldConvBatchnorm().apply(model, None)

    assert all(torch.equal(before[name], value) for name, value in model.program.state_dict.items())


class SharedConvolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.one, self.two = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.two(self.conv(self.one(self.conv(x))))


class OutputUsedTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        y = self.conv(x)
        return y + self.norm(y)


@pytest.mark.parametrize("kind", [SharedConvolution, OutputUsedTwice])
def test_a_convolution_that_is_used_elsewhere_is_not_folded(kind):
    with pytest.raises(NotApplicable, match="no convolution"):
        _folded(FoldConvBatchnorm(), kind().eval(), torch.randn(2, 3, 4, 4))


def test_a_normalization_over_another_dimension_than_the_layers_outputs_is_not_folded():
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)).eval()

    with pytest.raises(NotApplicable, match="no linear layer"):
        _folded(FoldLinearBatchnorm(), module, torch.randn(2, 6, 4))


def test_a_depthwise_convolution_is_folded_too():
    module = nn.Sequential(nn.Conv2d(6, 6, 3, groups=6, bias=False), nn.BatchNorm2d(6)).eval()
    image = torch.randn(2, 6, 5, 5)
    nn.init.uniform_(module[1].running_var, 0.5, 2.0)

    program = _folded(FoldConvBatchnorm(), module, image)

    torch.testing.assert_close(eager.run_flat(program, [image])[0], module(image))
