"""Triton's extensions of the Open Inference Protocol: the model repository and statistics."""
