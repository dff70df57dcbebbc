"""SEC-4 and SEC-5: every change of the infrastructure is on record, and the record can't be altered."""

from __future__ import annotations

import json

from infraproof.plan import Plan
from readers.buckets import buckets

from checks.registry import Problems, at_least, check, each, exactly

AUDIT_DAYS = 365
#: What an auditor asks about: each word group names one kind of change that must raise an alarm.
CHANGES = {
    "root use": ("Root",),
    "sign-in without MFA": ("MFAUsed",),
    "IAM change": ("Put*Policy", "PutRolePolicy"),
    "key deletion": ("ScheduleKeyDeletion",),
    "trail stopped": ("StopLogging",),
    "bucket policy": ("PutBucketPolicy",),
    "security group": ("AuthorizeSecurityGroup",),
    "network ACL": ("NetworkAcl",),
    "unauthorised calls": ("AccessDenied", "UnauthorizedOperation"),
    "database deleted": ("DeleteDBInstance", "DeleteTable"),
}


@check("SEC-4")
def trail_sees_everything(plan: Plan) -> Problems:
    """One trail in all regions, with global services, validated, encrypted, to the log and to the audit bucket."""
    trails = plan.of("aws_cloudtrail")
    return [
        *exactly(1, trails, "trail"),
        *each(trails, lambda item: item.get("is_multi_region_trail") is True, "must cover all regions"),
        *each(
            trails, lambda item: item.get("include_global_service_events") is not False, "must cover global services"
        ),
        *each(trails, lambda item: item.get("enable_log_file_validation") is True, "must be validated"),
        *each(trails, lambda item: item.get("enable_logging") is not False, "must be on"),
        *each(trails, lambda item: item.is_set("kms_key_id"), "must use our own key"),
        *each(trails, lambda item: item.is_set("cloud_watch_logs_group_arn"), "must reach the log group"),
        *each(trails, lambda item: "-audit-" in str(item.get("s3_bucket_name")), "must reach the audit bucket"),
    ]


@check("SEC-4")
def trail_sees_the_artifacts(plan: Plan) -> Problems:
    """Reads and writes of artifacts are data events of the trail."""
    text = json.dumps([t.values for t in plan.of("aws_cloudtrail")], default=str)
    selected = "AWS::S3::Object" in text and "-artifacts-" in text
    return [] if selected else ["the trail doesn't record data events of the artifact bucket"]


@check("SEC-4")
def audit_record_is_locked(plan: Plan) -> Problems:
    """The audit bucket holds its records under object lock."""
    audit = [bucket for bucket in buckets(plan) if "-audit-" in bucket.name]
    locks = [lock for bucket in audit for lock in bucket.parts.get("aws_s3_bucket_object_lock_configuration", [])]
    return [
        *at_least(1, audit, "audit bucket"),
        *each([b.resource for b in audit], lambda item: item.get("object_lock_enabled") is True, "needs object lock"),
        *at_least(1, locks, "default lock of the audit bucket"),
        *each(locks, lambda item: (item.get("rule.default_retention.days") or 0) >= 1, "needs a period"),
    ]


@check("SEC-4")
def audit_record_is_kept(plan: Plan) -> Problems:
    """Nothing expires from the audit bucket before a year."""
    problems = []
    for bucket in buckets(plan):
        for item in bucket.parts.get("aws_s3_bucket_lifecycle_configuration", []) if "-audit-" in bucket.name else []:
            days = [
                e.get("days") for rule in item.blocks("rule") for e in rule.get("expiration") or [] if e.get("days")
            ]
            problems += [f"{item.address}: expires after {d} days" for d in days if d < AUDIT_DAYS]
    return problems


@check("SEC-4")
def changes_raise_alarms(plan: Plan) -> Problems:
    """Each kind of sensitive change has a filter or an event rule, and what it finds reaches somebody."""
    filters = [str(f.get("pattern")) for f in plan.of("aws_cloudwatch_log_metric_filter") if f.module == "cloudtrail"]
    rules = [str(r.get("event_pattern")) for r in plan.of("aws_cloudwatch_event_rule")]
    texts = filters + rules
    problems = [
        f"nothing watches: {kind}"
        for kind, words in CHANGES.items()
        if not any(w in text for text in texts for w in words)
    ]
    counted = [
        f.get("metric_transformation.name")
        for f in plan.of("aws_cloudwatch_log_metric_filter")
        if f.module == "cloudtrail"
    ]
    watched = {a.get("metric_name") for a in plan.of("aws_cloudwatch_metric_alarm") if a.is_set("alarm_actions")}
    return problems + [f"metric {name} has no alarm" for name in counted if name not in watched]


@check("SEC-4")
def events_reach_somebody(plan: Plan) -> Problems:
    """Every event rule has a target, and an event that can't be delivered is kept in a dead-letter queue."""
    targets = plan.of("aws_cloudwatch_event_target")
    names = {t.get("rule") for t in targets}
    rules = plan.of("aws_cloudwatch_event_rule")
    return [
        *each(rules, lambda item: item.get("name") in names or not item.get("name"), "has no target"),
        *each(targets, lambda item: item.is_set("dead_letter_config.arn"), "needs a dead-letter queue"),
    ]


@check("SEC-5")
def settings_are_watched_over_time(plan: Plan) -> Problems:
    """Config records the settings, GuardDuty watches the account, each unless another stack or the owner sees to it."""
    account = plan.variable("account") or {}
    kinds = {"config": "aws_config_configuration_recorder", "guardduty": "aws_guardduty_detector"}
    problems = []
    for switch, kind in kinds.items():
        wanted = 1 if (account.get(switch) or "create") == "create" else 0
        problems += exactly(wanted, plan.of(kind), f"{kind} for {switch} = {account.get(switch)}")
    recorders = plan.of("aws_config_configuration_recorder_status")
    return problems + each(recorders, lambda item: item.get("is_enabled") is True, "must be on")


@check("SEC-5")
def evidence_is_an_output(plan: Plan) -> Problems:
    """The stack says where an auditor finds trail, audit bucket, vault, boundary and keys."""
    evidence = plan.outputs.get("evidence")
    return [] if evidence is not None else ["no output `evidence`"]


@check("SEC-5")
def outsiders_are_found(plan: Plan) -> Problems:
    """Access Analyzer reports what is shared with anybody outside the account, unless it exists already."""
    wanted = 1 if ((plan.variable("account") or {}).get("access_analyzer") or "create") == "create" else 0
    return exactly(wanted, plan.of("aws_accessanalyzer_analyzer"), "access analyzer")
