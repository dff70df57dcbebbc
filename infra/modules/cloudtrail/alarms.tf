# Change alarms. IAM and root events are recorded in one region only, so these are filters on the multi-region trail's
# log group and not event rules, which would be deaf to them elsewhere (CIS AWS Foundations, monitoring).

locals {
  namespace = "${var.context.name}/audit"
  # By the names of the calls; CloudWatch takes patterns of at most 1,024 characters.
  by_call = {
    iam-changed = {
      says = "A policy or a role's trust changed.", source = "iam"
      calls = [
        "PutRolePolicy", "PutUserPolicy", "PutGroupPolicy", "AttachRolePolicy", "AttachUserPolicy", "AttachGroupPolicy",
        "DetachRolePolicy", "DeleteRolePolicy", "CreatePolicy", "CreatePolicyVersion", "DeletePolicy",
        "SetDefaultPolicyVersion", "UpdateAssumeRolePolicy", "PutRolePermissionsBoundary", "DeleteRolePermissionsBoundary",
      ]
    }
    access-key-made = {
      says  = "A long-lived access key or a console password was made; the stack needs none.", source = "iam"
      calls = ["CreateAccessKey", "CreateLoginProfile", "CreateUser"]
    }
    key-deletion = {
      says  = "A KMS key was disabled or its deletion scheduled.", source = "kms"
      calls = ["DisableKey", "ScheduleKeyDeletion", "DisableKeyRotation"]
    }
    key-policy = {
      says  = "The policy of a KMS key changed.", source = "kms"
      calls = ["PutKeyPolicy"]
    }
    trail-changed = {
      says  = "A trail was stopped, changed or deleted.", source = "cloudtrail"
      calls = ["StopLogging", "DeleteTrail", "UpdateTrail", "PutEventSelectors", "PutInsightSelectors"]
    }
    bucket-changed = {
      says = "Policy, lock, encryption, lifecycle or public access of a bucket changed.", source = "s3"
      calls = [
        "PutBucketPolicy", "DeleteBucketPolicy", "PutBucketAcl", "PutBucketPublicAccessBlock", "DeleteBucketPublicAccessBlock",
        "PutBucketLifecycle", "DeleteBucketLifecycle", "PutBucketEncryption", "DeleteBucketEncryption", "PutBucketVersioning",
        "PutBucketObjectLockConfiguration", "DeleteBucket",
      ]
    }
    group-changed = {
      says = "A security group changed.", source = "ec2"
      calls = [
        "AuthorizeSecurityGroupIngress", "AuthorizeSecurityGroupEgress", "RevokeSecurityGroupIngress",
        "RevokeSecurityGroupEgress", "ModifySecurityGroupRules", "CreateSecurityGroup", "DeleteSecurityGroup",
      ]
    }
    acl-changed = {
      says = "A network ACL changed.", source = "ec2"
      calls = [
        "CreateNetworkAcl", "CreateNetworkAclEntry", "DeleteNetworkAcl", "DeleteNetworkAclEntry", "ReplaceNetworkAclEntry",
        "ReplaceNetworkAclAssociation",
      ]
    }
    gateway-opened = {
      says = "A way to the internet or to another network was made or taken away.", source = "ec2"
      calls = [
        "CreateInternetGateway", "AttachInternetGateway", "DetachInternetGateway", "DeleteInternetGateway", "CreateNatGateway",
        "CreateCustomerGateway", "CreateVpcPeeringConnection", "AcceptVpcPeeringConnection", "CreateTransitGatewayVpcAttachment",
      ]
    }
    routes-changed = {
      says = "Routes, endpoints or the VPC itself changed.", source = "ec2"
      calls = [
        "CreateRoute", "ReplaceRoute", "DeleteRoute", "CreateRouteTable", "DeleteRouteTable", "ReplaceRouteTableAssociation",
        "DisassociateRouteTable", "CreateVpcEndpoint", "ModifyVpcEndpoint", "DeleteVpcEndpoints", "ModifyVpcAttribute",
        "DeleteVpc", "DeleteFlowLogs",
      ]
    }
    database-deleted = {
      says = "A database, table, snapshot or recovery point was deleted or shared."
      calls = [
        "DeleteDBInstance", "DeleteDBSnapshot", "ModifyDBSnapshotAttribute", "DeleteDBInstanceAutomatedBackup", "DeleteTable",
        "DeleteRecoveryPoint", "DeleteBackupVault", "DeleteBackupVaultLockConfiguration", "PutBackupVaultAccessPolicy",
      ]
    }
    detection-off = {
      says = "Config, GuardDuty or Security Hub was stopped."
      calls = [
        "StopConfigurationRecorder", "DeleteConfigurationRecorder", "DeleteDeliveryChannel", "DeleteDetector", "UpdateDetector",
        "DisableSecurityHub", "DeleteAlarms", "DisableAlarmActions",
      ]
    }
    firewall-changed = {
      says  = "The firewall in front of the API changed, or was taken away.", source = "wafv2"
      calls = ["UpdateWebACL", "DeleteWebACL", "DisassociateWebACL", "UpdateIPSet", "DeleteLoggingConfiguration"]
    }
    api-changed = {
      says  = "The API, a stage or a usage plan changed.", source = "apigateway"
      calls = ["PutRestApi", "UpdateRestApi", "DeleteRestApi", "UpdateStage", "DeleteStage", "UpdateUsagePlan", "DeleteUsagePlan", "DeleteMethod", "UpdateMethod"]
    }
  }
  by_call_pattern = { for key, change in local.by_call : key => {
    says    = change.says
    pattern = "{ ${join("", [for source in compact([try(change.source, "")]) : "($.eventSource = \"${source}.amazonaws.com\") && "])}(${join(" || ", [for call in change.calls : "($.eventName = \"${call}\")"])}) }"
    limit   = 0
  } }
  by_content = {
    root-use = {
      says    = "The root user did something."
      pattern = "{ ($.userIdentity.type = \"Root\") && ($.userIdentity.invokedBy NOT EXISTS) && ($.eventType != \"AwsServiceEvent\") }"
      limit   = 0
    }
    sign-in-no-mfa = {
      says    = "Somebody signed in to the console without a second factor."
      pattern = "{ ($.eventName = \"ConsoleLogin\") && ($.additionalEventData.MFAUsed != \"Yes\") && ($.userIdentity.type = \"IAMUser\") && ($.responseElements.ConsoleLogin = \"Success\") }"
      limit   = 0
    }
    sign-in-failed = {
      says    = "More than five sign-ins failed in five minutes."
      pattern = "{ ($.eventName = \"ConsoleLogin\") && ($.errorMessage = \"Failed authentication\") }"
      limit   = 5
    }
    refused-calls = {
      says    = "More than ten calls were refused in five minutes."
      pattern = "{ ($.errorCode = \"*UnauthorizedOperation\") || ($.errorCode = \"AccessDenied*\") }"
      limit   = 10
    }
    database-exposed = {
      says    = "A database was made public or lost its protection."
      pattern = "{ ($.eventSource = \"rds.amazonaws.com\") && (($.requestParameters.publiclyAccessible IS TRUE) || ($.requestParameters.deletionProtection IS FALSE)) }"
      limit   = 0
    }
  }
  changes = merge(local.by_call_pattern, local.by_content)
}

resource "aws_cloudwatch_log_metric_filter" "change" {
  for_each = local.changes

  name           = "${var.context.name}-${each.key}"
  log_group_name = var.log_group_name
  pattern        = each.value.pattern

  metric_transformation {
    name          = each.key
    namespace     = local.namespace
    value         = "1"
    default_value = "0"
  }
}

resource "aws_cloudwatch_metric_alarm" "change" {
  for_each = local.changes

  alarm_name          = "${var.context.name}-${each.key}"
  alarm_description   = "audit: ${each.value.says} (SEC-4)"
  namespace           = local.namespace
  metric_name         = aws_cloudwatch_log_metric_filter.change[each.key].metric_transformation[0].name
  statistic           = "Sum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.limit
  period              = 300
  evaluation_periods  = 1
  datapoints_to_alarm = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = [var.topic_arn]
  tags                = var.tags
}
