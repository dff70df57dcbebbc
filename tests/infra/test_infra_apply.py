"""One combination is applied from an empty account on the emulator, read back over the AWS API, and destroyed."""

from __future__ import annotations

from emulation.applying import Applied, destroy
from emulation.proofs import record_applied, unexpected_leftovers
from emulation.readback import Account
from emulation.release import RELEASED, changes_after_release, release
from infraproof.results import Results


def test_two_applies_from_an_empty_account_leave_no_drift(applied: Applied, results: Results) -> None:
    """Bootstrap and both applies succeed; the plan after them changes nothing but what the emulator forgot."""
    record_applied(results, applied)
    assert applied.drift == []


def test_every_resource_was_made_by_a_call(applied: Applied) -> None:
    """A resource counts as applied only if the emulator took its create call and the state isn't schema only."""
    unproven = applied.unproven()
    assert unexpected_leftovers(unproven) == {}


def test_buckets_are_as_planned(account: Account) -> None:
    """Each bucket answers with encryption, versioning, a closed public access block and a policy that demands TLS."""
    assert len(account.buckets()) >= 3
    for name in account.buckets():
        bucket = account.bucket(name)
        assert bucket["encryption"]["SSEAlgorithm"] == ("AES256" if "-logs-" in name else "aws:kms")
        assert bucket["versioning"] == "Enabled"
        assert all(bucket["public_access"].values())
        denied = [s for s in bucket["policy"]["Statement"] if s["Effect"] == "Deny"]
        assert any("aws:SecureTransport" in str(s.get("Condition")) for s in denied)


def test_keys_rotate(account: Account) -> None:
    """Every key of ours says that it rotates."""
    keys = account.own_keys()
    assert len(keys) >= 5
    assert [key["KeyId"] for key in keys if not key["rotates"]] == []


def test_database_is_closed_encrypted_and_backed_up(applied: Applied, account: Account) -> None:
    """RDS answers: encrypted, not public, a standby, 35 days back in time, a managed password; so do tables."""
    if applied.stack.variables["database"] == "dynamodb":
        assert_tables_recover(applied, account)
        return
    database = account.database()
    assert database["StorageEncrypted"] is True
    assert database["PubliclyAccessible"] is False
    assert database["MultiAZ"] is True
    assert database["BackupRetentionPeriod"] == 35
    assert database["Engine"] == "postgres"
    assert database["IAMDatabaseAuthenticationEnabled"] is True


def assert_tables_recover(applied: Applied, account: Account) -> None:
    """DynamoDB answers: our key, every second of the last weeks to go back to, records that go by themselves.

    Asked of the tables that a call made; the others have a form that the emulating provider lacks (KNOWN_GAPS).
    """
    made = [i.values["name"] for i in applied.instances if i.type == "aws_dynamodb_table" and not i.schema_only]
    assert made
    for table in (account.tables()[name] for name in made):
        assert table["SSEDescription"]["SSEType"] == "KMS"
        assert table["recovery"]["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"
        assert table["ttl"]["TimeToLiveStatus"] == "ENABLED"


def test_alarms_are_set_and_tell_somebody(applied: Applied, account: Account) -> None:
    """The alarms of the prediction log, errors and the store exist; whatever pages names the topic."""
    alarms = account.alarms()
    metrics = {a.get("MetricName") for a in alarms}
    metrics |= {
        q["MetricStat"]["Metric"]["MetricName"] for a in alarms for q in a.get("Metrics", []) if "MetricStat" in q
    }
    assert {"PredictionsAnswered", "PredictionsLogged"} <= metrics
    service = {"SpoolOldestAge", "Saturation", "FreeStorageSpace"}
    assert applied.stack.variables["compute"] == "lambda" or service <= metrics
    assert len([a for a in alarms if a["AlarmActions"]]) >= 10


def test_budget_is_set_with_its_warnings(account: Account) -> None:
    """The budget is 5,000 USD a month with three warnings on cost and one on the forecast."""
    budget = account.budget()
    assert float(budget["BudgetLimit"]["Amount"]) == 5000
    assert budget["TimeUnit"] == "MONTHLY"
    kinds = [note["NotificationType"] for note in budget["notifications"]]
    assert kinds.count("ACTUAL") >= 3
    assert kinds.count("FORECASTED") >= 1


def test_usage_plans_bound_their_clients_and_keys_stay_out(account: Account) -> None:
    """Both tiers have a plan with rate and burst on the live stage; no key was made by Terraform."""
    plans = account.usage_plans()
    rates = sorted(plan["throttle"]["rateLimit"] for plan in plans)
    assert rates == [60, 240]
    assert all(stage["stage"] == "live" for plan in plans for stage in plan["apiStages"])
    assert account.client("apigateway").get_api_keys()["items"] == []


def test_a_key_of_the_service_fits_a_plan(account: Account) -> None:
    """A key as the key synchronisation writes it can be put into a tier and found there."""
    client, plan = account.client("apigateway"), account.usage_plans()[0]
    key = client.create_api_key(name="acme", value="k" * 40, enabled=True)
    client.create_usage_plan_key(usagePlanId=plan["id"], keyId=key["id"], keyType="API_KEY")
    kept = client.get_usage_plan_keys(usagePlanId=plan["id"])["items"]
    client.delete_usage_plan_key(usagePlanId=plan["id"], keyId=key["id"])
    client.delete_api_key(apiKey=key["id"])
    assert [item["id"] for item in kept] == [key["id"]]


def test_trail_records_in_every_region(account: Account) -> None:
    """The trail is on, in all regions, validated and encrypted."""
    trail = account.trail()
    assert trail["IsMultiRegionTrail"] is True
    assert trail["LogFileValidationEnabled"] is True
    assert trail["status"]["IsLogging"] is True
    assert trail["KmsKeyId"]


def test_volumes_are_encrypted_by_default(account: Account) -> None:
    """The account encrypts new volumes."""
    assert account.ebs_encrypted_by_default()


def test_traffic_is_recorded(account: Account) -> None:
    """A flow log records all traffic."""
    assert {log["TrafficType"] for log in account.flow_logs()} == {"ALL"}


def test_nothing_is_open_to_the_internet(account: Account) -> None:
    """No security group rule lets every address in."""
    assert account.open_ingress() == []


def test_service_is_told_what_was_made(applied: Applied, account: Account) -> None:
    """Bucket, usage plans and API in the service's settings exist in the account under those names."""
    settings = applied.outputs["service_environment"]
    bucket = settings["MODELYARD_ARTIFACTS__URL"].removeprefix("s3://").split("/")[0]
    assert bucket in account.buckets()
    assert applied.outputs["api_id"] == settings["MODELYARD_AWS__API_ID"]
    assert set(applied.outputs["usage_plan_ids"].values()) == {plan["id"] for plan in account.usage_plans()}


def test_y_plan_is_empty_after_a_release(applied: Applied, account: Account, results: Results) -> None:
    """Another image is released over the API as the release tool does; the plan after it changes nothing."""
    assert release(applied) == RELEASED
    changed = changes_after_release(applied)
    results.add("applied", applied.stack.name, after_release=changed)
    assert changed == []


def test_zz_destroy_leaves_nothing(applied: Applied, account: Account, results: Results) -> None:
    """`terraform destroy` ends well with deletion protection off, and neither state nor account keeps anything."""
    done = destroy(applied)
    results.add("applied", applied.stack.name, destroy_s=round(done.seconds), destroy_clean=done.code == 0)
    done.checked("destroy")
    assert applied.left() == []
    assert account.buckets() == []
    # Bootstrap's key outlives the stack: it holds the state and the images.
    assert [key["Description"] for key in account.own_keys() if "bootstrap" not in key["Description"]] == []
