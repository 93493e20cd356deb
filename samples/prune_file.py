"""Prune an ONNX file without its training code: what can go, what half of it would cost, and the smaller file.

python samples/prune_file.py model.onnx small.onnx
"""

import sys

import zig

source, target = sys.argv[1:]

partition = zig.analyze(source)
for group in partition.node_groups:
    print(f"{group.size:5} x {group.name}")
for fixed in partition.fixed[:5]:
    print(f"stays: {fixed.tensor}, axis {fixed.axis}: {fixed.reason}")

plan = zig.prune(partition, ratio=0.5, of="params", criterion="magnitude")
report = zig.compress(source, target, plan)  # compares with onnxruntime before it writes anything

assert report.comparison is not None
print(f"parameters: {report.before['parameters']:,} -> {report.after['parameters']:,}")
print(f"multiply-adds: {report.before['macs']:,} -> {report.after['macs']:,}")
print(f"largest difference to the full model with the same groups zeroed: {report.comparison.max_abs:.1e}")
