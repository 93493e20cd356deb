"""Imported by the process that all children are forked from: what the first export loads and caches."""

import onnxruntime  # noqa: F401
import sklearn.datasets
import torch

import zig.cli
import zig.runs.train  # noqa: F401
from zig.training.demo import DigitNet
from zig.training.export import export

sklearn.datasets.load_digits()
export(DigitNet(4), torch.zeros(2, 1, 8, 8))
