"""A detector's ONNX file becomes a bundle: what its head is, and what its graph has to be called."""
