"""What computes: ONNX Runtime and TensorRT, on whatever a machine has."""
