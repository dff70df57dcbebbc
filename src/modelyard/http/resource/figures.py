"""The forms of the answers about the prediction log's figures."""

from __future__ import annotations

from pydantic import Field

from modelyard.http.resource.answers import Answer, Time
from modelyard.http.resource.records import Sizes


class CountedTime(Answer):
    """What time was counted: what was asked for, widened to whole minutes, or hours where it is longer ago than a
    day."""

    since: Time
    until: Time
    pending_minutes: int = Field(description="Minutes of it whose newest changes are not in yet.")


class LatencyFigures(Answer):
    """Of answered requests, microseconds; percentiles within 1/64. Null where nothing was answered."""

    mean_us: float | None
    p50_us: float | None
    p90_us: float | None
    p99_us: float | None
    max_us: int | None


class FiguresAnswer(Answer):
    """The figures of some requests."""

    requests: int
    items: int
    answered: int = Field(description="With a status below 400.")
    client_errors: int = Field(description="400 to 499, callers who left among them.")
    server_errors: int = Field(description="500 and more.")
    error_rate: float | None = Field(description="`server_errors` of all `requests`.")
    latency: LatencyFigures
    sizes: Sizes


class GroupAnswer(FiguresAnswer):
    """The figures of one group; null is what was not told apart."""

    time: Time | None
    model: str | None
    version: str | None
    client: str | None
    endpoint: str | None


class RequestsAnswer(CountedTime):
    """Figures by group."""

    groups: list[GroupAnswer]
    left_out: int = Field(description="Smaller groups beyond the limit.")


class BinAnswer(Answer):
    """`low` inclusive, `high` exclusive but for the last."""

    low: float
    high: float
    count: int


class NumbersAnswer(Answer):
    """A distribution of numbers; percentiles within 1/64."""

    mean: float
    min: float
    max: float
    percentiles: dict[str, float] = Field(description="p1, p25, p50, p75, p99.")
    bins: list[BinAnswer] = Field(description="20 of equal width.")


class LabelAnswer(Answer):
    """How often a label came; null: all others together."""

    label: str | None
    count: int


class ScoreAnswer(Answer):
    """A distribution; `count` is estimated from `sampled` values."""

    count: int
    sampled: int
    numbers: NumbersAnswer | None
    labels: list[LabelAnswer] | None


class OutputAnswer(ScoreAnswer):
    """One output of one version; a column of several has its index behind the name."""

    model: str
    version: str
    output: str


class ScoresAnswer(CountedTime):
    """Distributions by version and output."""

    outputs: list[OutputAnswer]


class VersionFigures(FiguresAnswer):
    """One of two versions."""

    version: str


class DifferenceAnswer(Answer):
    """The other's less the base's, with its 95 % interval."""

    difference: float
    low: float
    high: float


class DriftAnswer(Answer):
    """`distance`: Kolmogorov-Smirnov's; of labels half the sum of all differences. `stability_index`: below 0.1 is
    called little, above 0.25 much."""

    distance: float
    stability_index: float


class ComparedOutput(Answer):
    """One output of both."""

    output: str
    base: ScoreAnswer | None
    other: ScoreAnswer | None
    drift: DriftAnswer | None


class ComparisonAnswer(CountedTime):
    """Two versions of a model."""

    model: str
    base: VersionFigures
    other: VersionFigures
    error_rate_difference: DifferenceAnswer | None
    outputs: list[ComparedOutput]
