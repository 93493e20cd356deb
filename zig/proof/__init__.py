"""Whether two models compute the same: onnxruntime says."""
