"""The requirement catalogue: identifier, group of the mission document, requirement and the modules that answer it."""

from __future__ import annotations

from dataclasses import dataclass

SERVICE = ("ecs", "lambda")
EVERY_MODULE = (
    "security",
    "iam",
    "storage",
    "database",
    "compute",
    "ecs",
    "lambda",
    "apigateway",
    "autoscaling",
    "cloudwatch",
    "cloudtrail",
    "awsbudgets",
)


@dataclass(frozen=True)
class Row:
    """One requirement and where infra/ answers it."""

    id: str
    group: str
    requirement: str
    modules: tuple[str, ...]


ROWS = (
    Row("API-1", "API", "RESTful API", ("apigateway", *SERVICE)),
    Row("API-2", "API", "JSON requests and responses", ("apigateway",)),
    Row("API-3", "API", "Batch predictions", ("apigateway",)),
    Row("API-4", "API", "API-key authentication", ("apigateway",)),
    Row("API-5", "API", "Rate limiting per client", ("apigateway", "database")),
    Row("API-6", "API", "p95 under 1 s at peak", (*SERVICE, "autoscaling", "cloudwatch")),
    Row("STORE-1", "Model storage", "Stored securely", ("storage", "iam")),
    Row("STORE-2", "Model storage", "Versioned", ("storage",)),
    Row("STORE-3", "Model storage", "Fast retrieval", ("storage", "security")),
    Row("STORE-4", "Model storage", "Several formats", ("storage",)),
    Row("DATA-1", "Database", "Model metadata", ("database",)),
    Row("DATA-2", "Database", "Every prediction logged", ("database", "cloudwatch")),
    Row("DATA-3", "Database", "Analytics over the log", ("database", "cloudwatch")),
    Row("DATA-4", "Database", "Retention", ("database", "cloudwatch")),
    Row("SEC-1", "Security", "Encryption in transit and at rest", EVERY_MODULE),
    Row("SEC-2", "Security", "No public database", ("database", "security")),
    Row("SEC-3", "Security", "Least privilege", ("iam",)),
    Row("SEC-4", "Security", "Audit of every change", ("cloudtrail", "storage")),
    Row("SEC-5", "Security", "SOC 2 evidence", ("cloudtrail", "iam")),
    Row("SEC-6", "Security", "Encryption of block storage", ("compute",)),
    Row("SEC-7", "Security", "Network isolation", ("security",)),
    Row("OPS-1", "Operations", "Automated deployment", ("main.tf",)),
    Row("OPS-2", "Operations", "Blue-green deployment", SERVICE),
    Row("OPS-3", "Operations", "Monitoring, alerting, log aggregation", ("cloudwatch",)),
    Row("OPS-4", "Operations", "Backups, point-in-time recovery", ("database",)),
    Row("OPS-5", "Operations", "Cost visibility and alerts", ("awsbudgets",)),
    Row("OPS-6", "Operations", "A/B testing", SERVICE),
    Row("PERF-1", "Performance", "Auto-scaling on CPU and memory", ("autoscaling",)),
    Row("PERF-2", "Performance", "Traffic spikes", ("autoscaling", *SERVICE)),
    Row("PERF-3", "Performance", "Cold start under 30 s", (*SERVICE, "compute")),
    Row("PERF-4", "Performance", "One region", ("provider.tf",)),
    Row("PERF-5", "Performance", "99.9 % available", ("security", "database", *SERVICE, "cloudwatch")),
    Row("COST-1", "Cost", "Under 5,000 USD a month", ("awsbudgets",)),
)
