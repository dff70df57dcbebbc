"""Reads an applied stack back over the AWS API: what the account says, not what the state remembers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from infraproof.combinations import ACCOUNT, REGION

from emulation.emulator import Emulator

CALL_TIMEOUT_S = 30


@dataclass(frozen=True)
class Account:
    """The account behind an emulator, asked through its public API."""

    emulator: Emulator

    def client(self, service: str) -> Any:
        """A boto3 client of the emulator."""
        config = Config(read_timeout=CALL_TIMEOUT_S, connect_timeout=CALL_TIMEOUT_S, s3={"addressing_style": "path"})
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        return boto3.client(service, region_name=REGION, endpoint_url=self.emulator.url, config=config, **keys)

    def buckets(self) -> list[str]:
        """The stack's buckets, without the state bucket of bootstrap."""
        names = [bucket["Name"] for bucket in self.client("s3").list_buckets()["Buckets"]]
        return [name for name in names if "-state" not in name]

    def bucket(self, name: str) -> dict[str, Any]:
        """Encryption, versioning, public access block and policy of one bucket."""
        s3 = self.client("s3")
        rules = s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"]
        return {
            "encryption": rules[0]["ApplyServerSideEncryptionByDefault"],
            "versioning": s3.get_bucket_versioning(Bucket=name).get("Status"),
            "public_access": s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"],
            "policy": json.loads(s3.get_bucket_policy(Bucket=name)["Policy"]),
        }

    def own_keys(self) -> list[dict[str, Any]]:
        """Every key that the stack or bootstrap made, by description, with its rotation status."""
        kms, found = self.client("kms"), []
        for key in kms.list_keys()["Keys"]:
            about = kms.describe_key(KeyId=key["KeyId"])["KeyMetadata"]
            if about["Description"].startswith("modelyard") and about["KeyState"] == "Enabled":
                found.append(
                    {**about, "rotates": kms.get_key_rotation_status(KeyId=key["KeyId"])["KeyRotationEnabled"]}
                )
        return found

    def database(self) -> dict[str, Any]:
        """The one RDS instance."""
        instances = self.client("rds").describe_db_instances()["DBInstances"]
        assert len(instances) == 1, [item["DBInstanceIdentifier"] for item in instances]
        found: dict[str, Any] = instances[0]
        return found

    def tables(self) -> dict[str, dict[str, Any]]:
        """Every DynamoDB table with its point-in-time recovery and expiry."""
        client = self.client("dynamodb")
        return {
            name: {
                **client.describe_table(TableName=name)["Table"],
                "recovery": client.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"],
                "ttl": client.describe_time_to_live(TableName=name)["TimeToLiveDescription"],
            }
            for name in client.list_tables()["TableNames"]
        }

    def alarms(self) -> list[dict[str, Any]]:
        """Every metric alarm."""
        pages = self.client("cloudwatch").get_paginator("describe_alarms").paginate()
        return [alarm for page in pages for alarm in page["MetricAlarms"]]

    def budget(self) -> dict[str, Any]:
        """The one budget with its notifications."""
        client = self.client("budgets")
        budgets = client.describe_budgets(AccountId=ACCOUNT)["Budgets"]
        assert len(budgets) == 1, budgets
        name = budgets[0]["BudgetName"]
        notes = client.describe_notifications_for_budget(AccountId=ACCOUNT, BudgetName=name)["Notifications"]
        return {**budgets[0], "notifications": notes}

    def usage_plans(self) -> list[dict[str, Any]]:
        """Every usage plan of the gateway."""
        found: list[dict[str, Any]] = self.client("apigateway").get_usage_plans()["items"]
        return found

    def trail(self) -> dict[str, Any]:
        """The one trail with its logging status."""
        client = self.client("cloudtrail")
        trails = client.describe_trails()["trailList"]
        assert len(trails) == 1, trails
        return {**trails[0], "status": client.get_trail_status(Name=trails[0]["TrailARN"])}

    def ebs_encrypted_by_default(self) -> bool:
        """Whether new volumes are encrypted."""
        return bool(self.client("ec2").get_ebs_encryption_by_default()["EbsEncryptionByDefault"])

    def flow_logs(self) -> list[dict[str, Any]]:
        """Every flow log."""
        found: list[dict[str, Any]] = self.client("ec2").describe_flow_logs()["FlowLogs"]
        return found

    def open_ingress(self) -> list[dict[str, Any]]:
        """Security group rules that let the whole internet in, of groups other than a default VPC's."""
        rules = self.client("ec2").describe_security_group_rules()["SecurityGroupRules"]
        return [r for r in rules if not r["IsEgress"] and r.get("CidrIpv4") == "0.0.0.0/0"]
