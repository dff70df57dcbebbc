"""The forms of Triton's repository and statistics answers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, RootModel

from modelyard.http.resource.answers import Answer


class RepositoryEntry(Answer):
    """A version in the repository."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str = Field(description="Why it does not answer; empty if it does.")


class RepositoryIndexAnswer(RootModel[list[RepositoryEntry]]):
    """The versions that this key may see."""

    model_config = ConfigDict(frozen=True)


class NothingAnswer(Answer):
    """Done; nothing to say."""


class Duration(Answer):
    """How often, and nanoseconds together."""

    count: int
    ns: int


class InferStatistics(Answer):
    """Of requests. Decoding is part of `queue`, so `compute_input` is 0; nothing is cached."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration
    cache_miss: Duration


class BatchStatistics(Answer):
    """Of the runs with this many rows."""

    batch_size: int
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class ModelStatistics(Answer):
    """One version since the server's start, over all workers of this host."""

    name: str
    version: str
    last_inference: int = Field(description="UNIX milliseconds; 0 if there was none.")
    inference_count: int = Field(description="Rows.")
    execution_count: int = Field(description="Runs of the model.")
    inference_stats: InferStatistics
    batch_stats: list[BatchStatistics]
    memory_usage: list[Any] = Field([], description="Not measured by version.")


class StatisticsAnswer(Answer):
    """Triton's `model_stats`."""

    model_stats: list[ModelStatistics]
