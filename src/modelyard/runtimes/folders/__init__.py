"""Folders that describe their model: MLflow's and Hugging Face's. What they say is read; one file of them is served."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from modelyard.runtimes.folders.description import Description
from modelyard.runtimes.folders.huggingface import read_huggingface
from modelyard.runtimes.folders.mlflow import read_mlflow


def describe(folder: Path, allowed: Collection[str] = ()) -> Description:
    """What the folder serves, by its own description where it has one, else by the content of its files, of formats
    that run code only those that are `allowed`; PublishError."""
    from modelyard.runtimes import detect

    described = read_mlflow(folder, allowed) or read_huggingface(folder)
    if described is not None:
        return described
    runtime, entry = detect(folder, allowed)
    return Description(runtime.format, entry)
