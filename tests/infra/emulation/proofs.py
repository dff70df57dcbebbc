"""Turns an applied stack into the rows of the proof's tables, and says what the emulator is known to lack."""

from __future__ import annotations

from infraproof.results import Results

from emulation.applying import Applied

#: Resource type -> why no apply on the emulator shows it; plans, checks and mutations do.
LEFT_TO_PLANS = {
    "aws_elasticache_replication_group": "the emulator makes no member clusters, which the provider reads back",
    "aws_elasticache_serverless_cache": "the emulator has no CreateServerlessCache",
    "aws_elasticache_subnet_group": "goes with the Valkey group",
    "aws_elasticache_user": "the emulator has no user groups",
    "aws_elasticache_user_group": "the emulator has no user groups",
    "aws_backup_restore_testing_plan": "the emulator has no CreateRestoreTestingPlan",
    "aws_backup_restore_testing_selection": "the emulator has no CreateRestoreTestingSelection",
    "aws_ebs_snapshot_block_public_access": "the emulator has no EnableSnapshotBlockPublicAccess",
    "aws_ec2_instance_metadata_defaults": "the emulator has no ModifyInstanceMetadataDefaults",
    "aws_guardduty_detector": "goes with its features",
    "aws_guardduty_detector_feature": "the emulator's detector forgets its features, which the provider reads back",
    "aws_accessanalyzer_analyzer": "the emulator has no CreateAnalyzer",
}
KEY_SCHEMA = "an index with `key_schema` is a form that the emulating provider lacks"
#: Address part -> why the emulator can't show its create call. Everything else that lacks one fails the proof.
KNOWN_GAPS: dict[str, str] = {
    'module.database.aws_dynamodb_table.this["metadata"]': KEY_SCHEMA,
    'module.database.aws_dynamodb_table.this["predictions"]': KEY_SCHEMA,
    'module.security.aws_acm_certificate_validation.this["domain"]': "there is no create call: the provider only asks "
    "DescribeCertificate until the certificate is issued",
}


def unexpected_leftovers(unproven: dict[str, str]) -> dict[str, str]:
    """The unproven resources that no known gap explains."""
    return {address: reason for address, reason in unproven.items() if not any(gap in address for gap in KNOWN_GAPS)}


def record_applied(results: Results, applied: Applied) -> None:
    """Keep the figures of one applied stack, and what no call made although no known gap explains it."""
    unproven = applied.unproven()
    results.add(
        "applied",
        applied.stack.name,
        resources=len(applied.instances),
        proven=len(applied.instances) - len(unproven),
        unexpected=unexpected_leftovers(unproven),
        retries=applied.retries,
        drift=applied.drift,
        forgotten=applied.forgotten,
        seconds={name: round(value, 1) for name, value in applied.seconds.items()},
    )
