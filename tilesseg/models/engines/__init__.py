"""The runtimes that compute a network: PyTorch, OpenVINO, ONNX Runtime."""
