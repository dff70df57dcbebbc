variable "context" {
  description = "Who and where: name prefix, environment, account, partition and region. ARNs are composed from it, so that policies are known at plan time."
  type = object({
    name        = string
    environment = string
    account_id  = string
    partition   = string
    region      = string
  })
}

variable "tags" {
  description = "Tags of every resource: Project, Environment, Module, Owner, ManagedBy."
  type        = map(string)
}

variable "ebs_defaults" {
  description = "create: encrypt every new volume of the account and region; exists: another stack did."
  type        = string

  validation {
    condition     = contains(["create", "exists"], var.ebs_defaults)
    error_message = "ebs_defaults must be \"create\" or \"exists\"."
  }
}

variable "instance_defaults" {
  description = "create: IMDSv2 for every new instance and no public snapshots in the account and region; exists: another stack did."
  type        = string

  validation {
    condition     = contains(["create", "exists"], var.instance_defaults)
    error_message = "instance_defaults must be \"create\" or \"exists\"."
  }
}

variable "capacity" {
  description = "Whether EC2 instances carry the tasks."
  type        = bool
}

variable "cluster_name" {
  description = "ECS cluster that the instances join."
  type        = string
}

variable "ec2" {
  description = "Instance type, most instances, warm pool."
  type = object({
    instance_type = string
    max_instances = number
    warm          = number
  })
}

variable "architecture" {
  description = "ARM64 or X86_64: which machine image."
  type        = string

  validation {
    condition     = contains(["ARM64", "X86_64"], var.architecture)
    error_message = "architecture must be ARM64 or X86_64."
  }
}

variable "ephemeral_gib" {
  description = "Volume of an instance beside what the system needs."
  type        = number
}

variable "min_instances" {
  description = "Fewest instances."
  type        = number
}

variable "deletion_protection" {
  description = "false: the group may be destroyed while instances still run."
  type        = bool
}

variable "subnet_ids" {
  description = "Private subnets."
  type        = list(string)
}

variable "security_group_id" {
  description = "Group of the instances; null unless compute is ecs-ec2."
  type        = string
}

variable "key_arn" {
  description = "Key of the volumes."
  type        = string
}

variable "instance_profile_arn" {
  description = "Profile of the instances; null unless compute is ecs-ec2."
  type        = string
}
