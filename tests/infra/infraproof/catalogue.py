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

    @property
    def resources(self) -> tuple[str, ...]:
        """The resource types that carry the answer."""
        return tuple(MAIN_RESOURCES.get(self.id, "").split())


#: Requirement -> the main resource types that answer it (without `aws_`); the wiring and the provider have none.
MAIN_RESOURCES = {
    "API-1": "api_gateway_rest_api api_gateway_deployment apigatewayv2_vpc_link lambda_permission",
    "API-2": "api_gateway_rest_api api_gateway_gateway_response",
    "API-3": "api_gateway_rest_api wafv2_web_acl",
    "API-4": "api_gateway_rest_api api_gateway_usage_plan",
    "API-5": "api_gateway_usage_plan api_gateway_method_settings elasticache_replication_group dynamodb_table",
    "API-6": "ecs_service appautoscaling_target",
    "STORE-1": "s3_bucket_policy s3_bucket_public_access_block s3_bucket_server_side_encryption_configuration",
    "STORE-2": "s3_bucket_versioning s3_bucket_object_lock_configuration",
    "STORE-3": "vpc_endpoint ecs_task_definition",
    "STORE-4": "s3_bucket s3_bucket_policy",
    "DATA-1": "db_instance dynamodb_table",
    "DATA-2": "db_instance dynamodb_table cloudwatch_metric_alarm",
    "DATA-3": "dynamodb_table cloudwatch_query_definition",
    "DATA-4": "cloudwatch_log_group dynamodb_table",
    "SEC-1": "kms_key lb_listener db_parameter_group db_proxy",
    "SEC-2": "db_instance vpc_security_group_ingress_rule",
    "SEC-3": "iam_role iam_role_policy iam_policy",
    "SEC-4": "cloudtrail cloudwatch_log_metric_filter s3_bucket_object_lock_configuration",
    "SEC-5": "config_configuration_recorder guardduty_detector accessanalyzer_analyzer",
    "SEC-6": "ebs_encryption_by_default ebs_default_kms_key launch_template",
    "SEC-7": "vpc subnet network_acl security_group vpc_endpoint flow_log",
    "OPS-2": "ecs_service lb_target_group lb_listener_rule lambda_alias codedeploy_deployment_group",
    "OPS-3": "cloudwatch_metric_alarm cloudwatch_dashboard sns_topic cloudwatch_log_group",
    "OPS-4": "db_instance backup_plan backup_vault_lock_configuration backup_restore_testing_plan",
    "OPS-5": "budgets_budget ce_anomaly_monitor ce_anomaly_subscription",
    "OPS-6": "lb_listener_rule lambda_alias",
    "PERF-1": "appautoscaling_target appautoscaling_policy",
    "PERF-2": "appautoscaling_policy cloudwatch_metric_alarm",
    "PERF-3": "lb_target_group autoscaling_group lambda_provisioned_concurrency_config",
    "PERF-5": "db_instance cloudwatch_composite_alarm subnet",
    "COST-1": "budgets_budget s3_bucket_lifecycle_configuration",
}

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
