# Change alarms. IAM and root events are recorded in one region only, so these are filters on the multi-region trail's
# log group and not event rules, which would be deaf to them elsewhere (CIS AWS Foundations, monitoring).

locals {
  namespace = "${var.context.name}/audit"
  changes = {
    root-use         = { says = "The root user did something.", pattern = "{ ($.userIdentity.type = \"Root\") && ($.userIdentity.invokedBy NOT EXISTS) && ($.eventType != \"AwsServiceEvent\") }" }
    sign-in-no-mfa   = { says = "Somebody signed in to the console without a second factor.", pattern = "{ ($.eventName = \"ConsoleLogin\") && ($.additionalEventData.MFAUsed != \"Yes\") && ($.userIdentity.type = \"IAMUser\") && ($.responseElements.ConsoleLogin = \"Success\") }" }
    refused-calls    = { says = "More than ten calls were refused in five minutes.", pattern = "{ ($.errorCode = \"*UnauthorizedOperation\") || ($.errorCode = \"AccessDenied*\") }", limit = 10 }
    iam-changed      = { says = "A policy or a role's trust changed.", pattern = "{ ($.eventSource = \"iam.amazonaws.com\") && (($.eventName = \"Put*Policy\") || ($.eventName = \"Attach*Policy\") || ($.eventName = \"Detach*Policy\") || ($.eventName = \"Delete*Policy\") || ($.eventName = \"CreatePolicy*\") || ($.eventName = \"SetDefaultPolicyVersion\") || ($.eventName = \"UpdateAssumeRolePolicy\") || ($.eventName = \"DeleteRolePermissionsBoundary\")) }" }
    access-key-made  = { says = "A long-lived access key or a console password was made; the stack needs none.", pattern = "{ ($.eventName = \"CreateAccessKey\") || ($.eventName = \"CreateLoginProfile\") }" }
    key-deletion     = { says = "A KMS key was disabled or its deletion scheduled.", pattern = "{ ($.eventSource = \"kms.amazonaws.com\") && (($.eventName = \"DisableKey\") || ($.eventName = \"ScheduleKeyDeletion\") || ($.eventName = \"DisableKeyRotation\")) }" }
    key-policy       = { says = "The policy of a KMS key changed.", pattern = "{ ($.eventSource = \"kms.amazonaws.com\") && ($.eventName = \"PutKeyPolicy\") }" }
    trail-changed    = { says = "A trail was stopped, changed or deleted.", pattern = "{ ($.eventName = \"StopLogging\") || ($.eventName = \"DeleteTrail\") || ($.eventName = \"UpdateTrail\") || ($.eventName = \"PutEventSelectors\") || ($.eventName = \"PutInsightSelectors\") }" }
    bucket-changed   = { says = "Policy, lock, encryption, lifecycle or public access of a bucket changed.", pattern = "{ ($.eventSource = \"s3.amazonaws.com\") && (($.eventName = \"PutBucketPolicy\") || ($.eventName = \"DeleteBucketPolicy\") || ($.eventName = \"PutBucketAcl\") || ($.eventName = \"PutBucketPublicAccessBlock\") || ($.eventName = \"DeleteBucketPublicAccessBlock\") || ($.eventName = \"PutBucketLifecycle*\") || ($.eventName = \"PutBucketEncryption\") || ($.eventName = \"PutObjectLockConfiguration\") || ($.eventName = \"PutBucketVersioning\")) }" }
    firewall-changed = { says = "A security group or network ACL changed.", pattern = "{ ($.eventName = \"AuthorizeSecurityGroup*\") || ($.eventName = \"RevokeSecurityGroup*\") || ($.eventName = \"ModifySecurityGroupRules\") || ($.eventName = \"CreateSecurityGroup\") || ($.eventName = \"DeleteSecurityGroup\") || ($.eventName = \"*NetworkAcl*\") }" }
    network-changed  = { says = "A way in or out changed: gateways, routes, endpoints, the VPC.", pattern = "{ ($.eventSource = \"ec2.amazonaws.com\") && (($.eventName = \"*InternetGateway\") || ($.eventName = \"*CustomerGateway\") || ($.eventName = \"CreateRoute\") || ($.eventName = \"ReplaceRoute*\") || ($.eventName = \"DeleteRoute*\") || ($.eventName = \"CreateVpc*\") || ($.eventName = \"DeleteVpc*\") || ($.eventName = \"ModifyVpc*\")) }" }
    database-exposed = { says = "A database was deleted, made public, shared or lost its protection.", pattern = "{ (($.eventSource = \"rds.amazonaws.com\") && (($.eventName = \"DeleteDB*\") || ($.eventName = \"ModifyDBSnapshotAttribute\") || ($.requestParameters.publiclyAccessible IS TRUE) || ($.requestParameters.deletionProtection IS FALSE))) || ($.eventName = \"DeleteTable\") || ($.eventName = \"DeleteRecoveryPoint\") || ($.eventName = \"DeleteBackupVault*\") }" }
    detection-off    = { says = "Config, GuardDuty or Security Hub was stopped.", pattern = "{ ($.eventName = \"StopConfigurationRecorder\") || ($.eventName = \"DeleteConfigurationRecorder\") || ($.eventName = \"DeleteDeliveryChannel\") || ($.eventName = \"DeleteDetector\") || ($.eventName = \"DisableSecurityHub\") }" }
    gateway-changed  = { says = "The API, a stage, a usage plan or the firewall in front of it changed.", pattern = "{ (($.eventSource = \"apigateway.amazonaws.com\") && (($.eventName = \"Update*\") || ($.eventName = \"Delete*\") || ($.eventName = \"Put*\")) && ($.eventName != \"*ApiKey\")) || (($.eventSource = \"wafv2.amazonaws.com\") && (($.eventName = \"Update*\") || ($.eventName = \"Delete*\") || ($.eventName = \"Disassociate*\"))) }" }
  }
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
  threshold           = try(each.value.limit, 0)
  period              = 300
  evaluation_periods  = 1
  datapoints_to_alarm = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = [var.topic_arn]
  tags                = var.tags
}
