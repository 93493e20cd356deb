"""An ONNX file as zig sees it: nodes, initializers, bodies spread out, shapes, symbolic sizes, what is damaged."""
