"""Modelyard takes a trained model from a file to an audited production API."""

__version__ = "0.1.0"
