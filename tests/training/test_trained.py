"""After training: the model with its zero groups and the compressed one give the same answers, in torch and in ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from zig import OTO

METHODS = ("hspg", "dhspg", "hesso", "hesso_cric")
STEPS = 30
SCHEDULE: dict[str, Any] = {"start_pruning_steps": 5, "pruning_steps": 20, "target_group_sparsity": 0.5}


class Classifier(nn.Module):
    """BERT, tiny, with attention and dropout as they come."""

    def __init__(self) -> None:
        super().__init__()
        transformers = pytest.importorskip("transformers", reason="needs the extra 'zoo'")
        config = transformers.BertConfig(
            vocab_size=40, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
            max_position_embeddings=16, num_labels=3, attn_implementation="eager",
        )  # fmt: skip
        self.bert = transformers.BertForSequenceClassification(config)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.bert(input_ids=tokens).logits


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 16, 3, padding=1, stride=2),
        nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip


def tokens(count: int) -> tuple[Tensor, Tensor]:
    given = torch.randint(0, 40, (count, 12))
    return given, given[:, :4].sum(1) % 3


def images(count: int) -> tuple[Tensor, Tensor]:
    given = torch.randn(count, 1, 8, 8)
    return given, given.mean((1, 2, 3)).mul(20).round().long() % 3


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("make", "draw"), [(Classifier, tokens), (convolutions, images)], ids=["bert", "batch norm"])
def test_the_answers_stay(method: str, make: Any, draw: Any, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = make()
    batch = 16
    oto = OTO(model, draw(batch)[0])
    optimizer = getattr(oto, method)("adamw", lr=2e-3, **SCHEDULE)
    model.train()
    for _ in range(STEPS):
        given, wanted = draw(batch)

        def loss(given: Tensor = given, wanted: Tensor = wanted) -> Tensor:
            optimizer.zero_grad()
            value = functional.cross_entropy(model(given), wanted)
            value.backward()
            return value

        optimizer.step(loss)
    assert optimizer.finished
    assert optimizer.group_sparsity == pytest.approx(0.5, abs=1 / len(oto.partition))
    model.eval()
    oto.compress(tmp_path)
    full, small = sorted(tmp_path.glob("*_full.onnx"))[0], sorted(tmp_path.glob("*_compressed.onnx"))[0]
    given, wanted = draw(batch)
    with torch.no_grad():
        answers = [model(given).numpy(), oto.compressed(given).numpy()]
    sessions = [onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]) for path in (full, small)]
    answers += [session.run(None, {session.get_inputs()[0].name: given.numpy()})[0] for session in sessions]
    largest = np.abs(answers[0]).max()
    assert all(np.abs(answer - answers[0]).max() <= 1e-5 * max(largest, 1) for answer in answers)
    hits = [(answer.argmax(1) == wanted.numpy()).mean() for answer in answers]
    assert len(set(hits)) == 1
    if make is convolutions:  # in the other mode of BatchNorm, too
        model.train()
        oto.compressed.train()
        with torch.no_grad():
            torch.testing.assert_close(oto.compressed(given), model(given), rtol=1e-4, atol=1e-5)
