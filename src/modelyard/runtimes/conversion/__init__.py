"""Models of other formats as ONNX, and how far the answers are apart."""
