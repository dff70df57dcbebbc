# Promise: every volume is encrypted; instances have no way in and no old metadata service.
mock_provider "aws" {}

variables {
  context = {
    name        = "modelyard-test"
    environment = "test"
    account_id  = "123456789012"
    partition   = "aws"
    region      = "eu-central-1"
  }
  tags                 = { Project = "modelyard" }
  ebs_defaults         = "create"
  instance_defaults    = "create"
  capacity             = true
  cluster_name         = "modelyard-test"
  ec2                  = { instance_type = "m7g.xlarge", max_instances = 10, warm = 1 }
  architecture         = "ARM64"
  ephemeral_gib        = 40
  min_instances        = 2
  deletion_protection  = true
  subnet_ids           = ["subnet-1", "subnet-2"]
  security_group_id    = "sg-1"
  key_arn              = "arn:aws:kms:eu-central-1:123456789012:key/v"
  instance_profile_arn = "arn:aws:iam::123456789012:instance-profile/i"
}

run "instances_are_closed" {
  command = plan
  module {
    source = "./modules/compute"
  }

  assert {
    condition     = aws_ebs_encryption_by_default.this["account"].enabled && aws_ebs_default_kms_key.this["account"].key_arn == var.key_arn
    error_message = "Volumes are encrypted by default, with our key."
  }
  assert {
    condition     = alltrue([for b in aws_launch_template.this["ec2"].block_device_mappings : tobool(b.ebs[0].encrypted) && b.ebs[0].kms_key_id == var.key_arn])
    error_message = "Every volume of an instance is encrypted with our key."
  }
  assert {
    condition     = aws_launch_template.this["ec2"].metadata_options[0].http_tokens == "required" && aws_launch_template.this["ec2"].key_name == null
    error_message = "IMDSv2 only, no key pair."
  }
  assert {
    condition     = aws_ecs_capacity_provider.this["ec2"].auto_scaling_group_provider[0].managed_draining == "ENABLED"
    error_message = "Instances are drained before they go."
  }
}

run "defaults_of_another_stack_stay" {
  command = plan
  module {
    source = "./modules/compute"
  }
  variables {
    ebs_defaults      = "exists"
    instance_defaults = "exists"
    capacity          = false
  }

  assert {
    condition     = length(aws_ebs_encryption_by_default.this) == 0 && length(aws_ec2_instance_metadata_defaults.this) == 0 && length(aws_autoscaling_group.this) == 0
    error_message = "Nothing of the account is touched, no instance is made."
  }
}

run "unknown_architecture_and_defaults_are_refused" {
  command = plan
  module {
    source = "./modules/compute"
  }
  variables {
    architecture = "SPARC"
    ebs_defaults = "maybe"
  }
  expect_failures = [var.architecture, var.ebs_defaults]
}

run "fewer_than_the_fewest_is_refused" {
  command = plan
  module {
    source = "./modules/compute"
  }
  variables {
    ec2 = { instance_type = "m7g.xlarge", max_instances = 1, warm = 0 }
  }
  expect_failures = [aws_autoscaling_group.this["ec2"]]
}
