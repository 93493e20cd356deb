"""Train and prune at once, the OTO way: handwritten digits, a plain CNN, 60 % of its channels gone.

pip install 'onnx-zig[train]'
python samples/train_digits.py
"""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from zig import OTO

EPOCHS, BATCH = 20, 64


class Net(nn.Module):
    """Three convolutions and a linear head."""

    def __init__(self) -> None:
        """Start from random weights."""
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs, stride in ((1, 32, 1), (32, 64, 2), (64, 64, 2)):
            layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.features, self.head = nn.Sequential(*layers), nn.Linear(64, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Score ten digits."""
        return self.head(self.features(image).mean((2, 3)))


torch.manual_seed(0)
digits = load_digits()
images, labels = torch.tensor(digits.images[:, None] / 16, dtype=torch.float32), torch.tensor(digits.target)
train_x, test_x, train_y, test_y = train_test_split(images, labels, test_size=0.2, random_state=0)

model = Net()
oto = OTO(model, dummy_input=train_x[:1])
steps = EPOCHS * (len(train_x) // BATCH)
optimizer = oto.dhspg("adamw", lr=3e-3, target_group_sparsity=0.6, steps=steps)

model.train()
for epoch in range(EPOCHS):
    for batch in torch.randperm(len(train_x))[: steps // EPOCHS * BATCH].split(BATCH):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(train_x[batch]), train_y[batch])
        loss.backward()
        optimizer.step()
    print(f"epoch {epoch + 1:2}  loss {loss.item():.3f}  zero groups {optimizer.group_sparsity:.0%}")

model.eval()
with torch.no_grad():
    print(f"accuracy on held-out digits: {(model(test_x).argmax(1) == test_y).float().mean():.2%}")
report = oto.compress()  # Net_full.onnx, Net_compressed.onnx: same outputs
print(f"parameters: {report.before['parameters']:,} -> {report.after['parameters']:,}")
