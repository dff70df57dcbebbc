"""DATA-1 to DATA-4 and OPS-4: the database, the prediction log, retention, backups and point in time."""

from __future__ import annotations

import json

from infraproof.plan import Plan, Resource
from readers.alarms import alarms_on
from readers.service import setting

from checks.registry import Problems, at_least, check, each, exactly, on_dynamodb, on_rds, with_image

RECOVERY_DAYS = 35
ENGINES = {"postgres": "postgres", "mysql": "mysql"}


def record_tables(plan: Plan) -> list[Resource]:
    """The DynamoDB tables that hold data of record (not the limit counters)."""
    return [t for t in plan.of("aws_dynamodb_table") if not str(t.get("name", "")).endswith("counters")]


@check("DATA-1")
def one_database_is_planned(plan: Plan) -> Problems:
    """Exactly the database that was asked for is planned, and no other beside it."""
    instances = plan.of("aws_db_instance")
    if plan.database == "dynamodb":
        return [*exactly(0, instances, "RDS instance"), *at_least(1, record_tables(plan), "DynamoDB table")]
    wanted = ENGINES[plan.database]
    return [
        *exactly(1, instances, "RDS instance"),
        *exactly(0, record_tables(plan), "DynamoDB table"),
        *each(instances, lambda item: item.get("engine") == wanted, f"engine must be {wanted}"),
    ]


@check("DATA-1", with_image)
def service_knows_its_database(plan: Plan) -> Problems:
    """The service gets the database and the artifact store as settings, the login without a password."""
    url, store = setting(plan, "MODELYARD_DATABASE__URL"), setting(plan, "MODELYARD_ARTIFACTS__URL")
    problems = [] if store.startswith("s3://") else [f"MODELYARD_ARTIFACTS__URL must be s3://..., not {store!r}"]
    if url and not url.startswith(("iam://", "dynamodb://", "postgresql", "mysql")):
        problems.append(f"MODELYARD_DATABASE__URL has an unknown form: {url!r}")
    return problems


@check("DATA-2", with_image)
def lost_predictions_page(plan: Plan) -> Problems:
    """Predictions answered but not logged, and a spool that isn't drained, both wake somebody."""
    gap = alarms_on(plan, "PredictionsAnswered", "PredictionsLogged")
    age = alarms_on(plan, "SpoolOldestAge")
    spools = setting(plan, "MODELYARD_JOURNAL__DURABILITY") != "store"
    return [
        *at_least(1, [a for a in gap if a.pages], "alarm on answered - logged"),
        *at_least(1 if spools else 0, [a for a in age if a.pages], "alarm on the oldest record in the spool"),
    ]


@check("DATA-2", with_image)
def durability_fits_the_place(plan: Plan) -> Problems:
    """On Lambda an answer leaves only after the database has the record; a frozen environment drains nothing."""
    durability = setting(plan, "MODELYARD_JOURNAL__DURABILITY")
    allowed = {"store"} if plan.compute == "lambda" else {"process", "store"}
    return [] if durability in allowed else [f"durability is {durability!r}, expected one of {sorted(allowed)}"]


@check("DATA-2", on_rds)
def log_grows_without_an_operator(plan: Plan) -> Problems:
    """Storage of the database grows by itself and an alarm watches what is left."""
    instances = plan.of("aws_db_instance")
    grows = each(
        instances,
        lambda item: (item.get("max_allocated_storage") or 0) > item.get("allocated_storage"),
        "must grow by itself",
    )
    return grows + at_least(1, alarms_on(plan, "FreeStorageSpace"), "alarm on free storage")


@check("DATA-3", on_dynamodb)
def log_can_be_queried_by_time(plan: Plan) -> Problems:
    """A DynamoDB table of predictions has a secondary index, so that analytics needn't scan it."""
    tables = [t for t in record_tables(plan) if "predictions" in str(t.get("name"))]
    return at_least(1, tables, "table of predictions") + each(
        tables, lambda item: bool(item.blocks("global_secondary_index")), "needs a secondary index"
    )


@check("DATA-3", on_rds)
def slow_queries_are_seen(plan: Plan) -> Problems:
    """The database exports its logs and reports its load, so that analytics can't slow the log unseen."""
    instances = plan.of("aws_db_instance")
    return [
        *each(instances, lambda item: bool(item.get("enabled_cloudwatch_logs_exports")), "must export its logs"),
        *each(instances, lambda item: item.get("performance_insights_enabled") is True, "must report its load"),
    ]


@check("DATA-3")
def saved_queries_exist(plan: Plan) -> Problems:
    """Saved queries over the service's log answer the questions of the first hour."""
    return at_least(2, plan.of("aws_cloudwatch_query_definition"), "saved queries")


@check("DATA-4")
def log_groups_expire(plan: Plan) -> Problems:
    """Every log group is kept for the retention asked for (audit: at least 365 days), never for ever."""
    days = plan.variable("retention_days")
    groups = plan.of("aws_cloudwatch_log_group")
    audit = [group for group in groups if "trail" in str(group.get("name"))]
    data = [group for group in groups if group not in audit]
    return [
        *at_least(1, groups, "log groups"),
        *each(data, lambda item: allowed_days(item, days), f"must be kept about {days} days"),
        *each(audit, lambda item: (item.get("retention_in_days") or 0) >= 365, "audit logs need a year"),
    ]


def allowed_days(group: Resource, days: int) -> bool:
    """True when a group is kept as long as asked, to the next period that CloudWatch offers."""
    kept = group.get("retention_in_days") or 0
    offered = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653)
    return bool(kept == min(value for value in offered if value >= days))


@check("DATA-4", on_dynamodb)
def records_expire(plan: Plan) -> Problems:
    """A table of predictions lets its items expire by themselves."""
    expiring = [
        t for t in plan.of("aws_dynamodb_table") if t.get("ttl.enabled") is True and t.get("ttl.attribute_name")
    ]
    return at_least(1, [t for t in expiring if t in record_tables(plan)], "record table with expiry")


@check("DATA-4", with_image)
def service_knows_the_retention(plan: Plan) -> Problems:
    """The service, which drops the partitions, is told the same number of days."""
    told, wanted = setting(plan, "MODELYARD_RETENTION__DAYS"), str(plan.variable("retention_days"))
    return [] if told == wanted else [f"the service is told {told!r} days, the stack {wanted}"]


@check("OPS-4", on_rds)
def database_goes_back_in_time(plan: Plan) -> Problems:
    """RDS keeps 35 days for point-in-time recovery, and backups outlive the instance."""
    instances = plan.of("aws_db_instance")
    return [
        *each(instances, lambda item: item.get("backup_retention_period") == RECOVERY_DAYS, "must keep 35 days"),
        *each(instances, lambda item: item.get("copy_tags_to_snapshot") is True, "snapshots must carry the tags"),
        *each(instances, lambda item: keeps_backups(plan, item), "backups must outlive the instance"),
    ]


def keeps_backups(plan: Plan, instance: Resource) -> bool:
    """True when deleting the instance leaves a final snapshot and its automated backups."""
    if plan.variable("deletion_protection") is False:
        return True
    return instance.get("skip_final_snapshot") is False and instance.get("delete_automated_backups") is False


@check("OPS-4", on_dynamodb)
def tables_go_back_in_time(plan: Plan) -> Problems:
    """Every table of record keeps 35 days for point-in-time recovery."""
    tables = record_tables(plan)
    return [
        *each(tables, lambda item: item.get("point_in_time_recovery.enabled") is True, "needs point-in-time recovery"),
        *each(tables, lambda item: recovery_days(item) == RECOVERY_DAYS, "must keep 35 days"),
    ]


def recovery_days(table: Resource) -> int:
    """Days of point-in-time recovery; 35 is what AWS gives when nothing is asked for."""
    return int(table.get("point_in_time_recovery.recovery_period_in_days") or RECOVERY_DAYS)


@check("OPS-4")
def databases_refuse_to_go(plan: Plan) -> Problems:
    """With deletion protection asked for, the database and its tables refuse to be deleted."""
    if plan.variable("deletion_protection") is False:
        return []
    return [
        *each(plan.of("aws_db_instance"), lambda item: item.get("deletion_protection") is True, "must refuse to go"),
        *each(record_tables(plan), lambda item: item.get("deletion_protection_enabled") is True, "must refuse to go"),
    ]


@check("OPS-4")
def backups_are_taken_and_locked(plan: Plan) -> Problems:
    """AWS Backup takes scheduled backups of what is selected, into an encrypted vault that can't be emptied."""
    vaults, plans = plan.of("aws_backup_vault"), plan.of("aws_backup_plan")
    locks = plan.of("aws_backup_vault_lock_configuration")
    lock_off = (plan.variable("backup") or {}).get("vault_lock") == "off"
    return [
        *at_least(1, vaults, "backup vault"),
        *each(vaults, lambda item: item.is_set("kms_key_arn"), "must use our own key"),
        *at_least(1, plans, "backup plan"),
        *each(plans, lambda item: bool(item.get("rule.schedule")), "needs a schedule"),
        *each(plans, lambda item: (item.get("rule.lifecycle.delete_after") or 0) >= 7, "must keep a week at least"),
        *at_least(1, plan.of("aws_backup_selection"), "backup selection"),
        *at_least(0 if lock_off else 1, locks, "vault lock"),
    ]


@check("OPS-4")
def restores_are_tested(plan: Plan) -> Problems:
    """A restore testing plan proves every month that the backups can be read, unless it was switched off."""
    if (plan.variable("backup") or {}).get("restore_test") is False:
        return []
    return at_least(1, plan.of("aws_backup_restore_testing_plan"), "restore testing plan")


@check("DATA-2", on_rds)
def parameters_keep_what_was_committed(plan: Plan) -> Problems:
    """No parameter trades durability for speed: a committed record is on disk."""
    text = json.dumps([g.values.get("parameter") for g in plan.of("aws_db_parameter_group")], default=str)
    lax = [name for name in ("fsync", "synchronous_commit", "innodb_flush_log_at_trx_commit") if f'"{name}"' in text]
    return [f"parameter {name} is changed from its durable default" for name in lax]
