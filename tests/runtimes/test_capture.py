"""Capturing: what the program gives is what the module gives, for any number of samples, or the reason why not."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import pytest
import torch
from torch import nn

from runtimes.models import Branching, Counting, Function, Overwriting, Pair, Recurrent, Scores, mlp
from vivace.core.errors import UnsupportedModel, UsageError
from vivace.runtimes import eager
from vivace.runtimes.capture import capture


def test_one_tensor_in_and_out_for_any_number_of_samples() -> None:
    module = mlp()

    found = capture(module, (torch.randn(1, 784),))

    program, x = eager.load(found.model), torch.randn(7, 784)
    assert found.note == ""
    assert found.model.signature.inputs[0].shape == (None, 784)
    assert found.model.signature.outputs[0].shape == (None, 10)
    assert torch.equal(program(x), module(x))


def test_keywords_constants_and_a_dataclass_answer_are_kept() -> None:
    module = Recurrent().eval()
    found = capture(module, {"x": torch.randn(2, 5, 8), "scale": 3.0}, varying=[frozenset({0, 1})])

    x = torch.randn(3, 9, 8)
    received, expected = eager.load(found.model)(x=x, scale=3.0), module(x, 3.0)

    assert type(received) is Scores
    assert torch.allclose(received.logits, expected.logits, atol=1e-6)
    assert torch.allclose(received.states[1], expected.states[1], atol=1e-6)
    assert [spec.batch_axis for spec in found.model.signature.outputs] == [0, 1, 1]


def test_the_batch_axis_may_be_the_second() -> None:
    found = capture(nn.LSTM(8, 16).eval(), (torch.randn(5, 1, 8),))

    assert found.batch_axes == (1,)
    assert found.model.signature.inputs[0].shape == (5, None, 8)


class Categories(nn.Module):
    """A table: two columns of categories, each with its own embedding, beside two numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.many, self.few, self.head = nn.Embedding(40, 3), nn.Embedding(2, 3), nn.Linear(8, 2)

    def forward(self, kinds: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([self.many(kinds[:, 0]), self.few(kinds[:, 1]), numbers], 1))


@pytest.mark.parametrize("samples", [1, 4])
def test_columns_of_categories_with_tables_of_different_lengths_keep_the_batch_free(samples: int) -> None:
    module = Categories().eval()
    kinds = torch.tensor([[39, 1], [7, 0], [20, 1], [3, 0], [30, 1]])
    numbers = torch.rand(5, 2)

    captured = capture(module, (kinds[:samples], numbers[:samples]))

    assert captured.model.signature.has_batch
    answer = eager.run_flat(captured.model.program, [kinds, numbers])[0]
    torch.testing.assert_close(answer, module(kinds, numbers))


def test_a_size_that_equals_the_batch_is_not_mistaken_for_it() -> None:
    module = Function(lambda x, table: x @ table).eval()

    found = capture(module, (torch.randn(4, 4), torch.randn(4, 4)))

    assert found.batch_axes == (0, None)


def test_named_tuples_lists_and_star_arguments_are_kept() -> None:
    module = Function(lambda a, b: Pair(a + b, [a - b][0])).eval()

    found = capture(module, (torch.randn(2, 3), torch.randn(2, 3)))

    answer = eager.load(found.model)(torch.ones(5, 3), torch.ones(5, 3))
    assert found.model.signature.parameters == ("arg0", "arg1")
    assert type(answer) is Pair
    assert torch.equal(answer.left, torch.full((5, 3), 2.0))


def test_a_model_that_mixes_its_samples_gets_fixed_shapes_and_a_note() -> None:
    found = capture(Function(lambda x: (x - x.mean()).sum(1, keepdim=True) * x.mean()).eval(), (torch.randn(4, 3),))

    assert "no batch axis was found" in found.note
    assert found.model.signature.inputs[0].shape == (4, 3)


def test_fixed_shapes_on_request_keep_the_batch_axis_beside() -> None:
    found = capture(mlp(), (torch.randn(2, 784),), fixed_shapes=True)

    assert found.model.signature.inputs[0].shape == (2, 784)
    assert not found.model.signature.has_batch
    assert found.batch_axes == (0,)


def test_a_hugging_face_model_answers_with_its_own_class() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers")
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50}
    module = transformers.BertModel(transformers.BertConfig(intermediate_size=64, **sizes)).eval()
    ids = torch.randint(0, 50, (2, 12))
    call = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    found = capture(module, call, varying=[frozenset({0, 1})] * 2)

    shorter = {name: value[:1, :7] for name, value in call.items()}
    received = eager.load(found.model)(**shorter)
    assert type(received) is type(module(**shorter))
    assert torch.allclose(received.last_hidden_state, module(**shorter).last_hidden_state, atol=1e-5)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Branching(), "torch.export could not capture the model: GuardOnDataDependent"),
        (Counting(), "the model changes b_module_calls when it is called"),
        (Overwriting(), "the model changes leaves_0 when it is called"),
        (Function(lambda x: {"x": object()}), "the model's answer cannot be kept"),
        (Function(lambda x: None), "holds no tensor"),
        (nn.Dropout(0.5).train(), "does not repeat the model's output"),
    ],
)
def test_models_that_cannot_be_captured_are_refused_with_the_reason(module: nn.Module, message: str) -> None:
    with pytest.raises(UnsupportedModel, match=message):
        capture(module, (torch.randn(2, 3),))


def test_the_line_of_the_model_that_cannot_be_captured_is_told() -> None:
    with pytest.raises(UnsupportedModel) as refused:
        capture(Branching(), (torch.randn(2, 3),))

    lines, start = inspect.getsourcelines(Branching.forward)
    at = next(number for number, line in enumerate(lines) if "if " in line)
    assert f'{inspect.getsourcefile(Branching)}:{start + at}, in forward: "{lines[at].strip()}"' in str(refused.value)
    assert "non_strict_utils" not in str(refused.value)


def test_too_many_positional_inputs_are_refused() -> None:
    with pytest.raises(UsageError, match="2 positional arguments, but the model's forward takes 1"):
        capture(mlp(), (torch.randn(1, 784), torch.randn(1, 784)))
