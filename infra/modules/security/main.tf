# SEC-2, SEC-7: three tiers of subnets in every zone. Each tier is a quarter of the range, each subnet a sixteenth:
# private (service, endpoints), data (database, cache), public (only with egress = "nat").

locals {
  name  = var.context.name
  zones = { for i, zone in var.network.zones : zone => i }
  tiers = {
    private = cidrsubnet(var.network.cidr, 2, 0)
    data    = cidrsubnet(var.network.cidr, 2, 1)
    public  = cidrsubnet(var.network.cidr, 2, 2)
  }
  public_zones  = var.network.egress == "nat" ? local.zones : {}
  on_ecs        = var.compute != "lambda"
  relational    = var.database != "dynamodb"
  database_port = var.database == "mysql" ? 3306 : 5432
  listener_port = var.domain == null ? 80 : 443
  test_port     = var.domain == null ? 8080 : 8443
  service_port  = 8443
  cache_port    = 6379
}

resource "aws_vpc" "this" {
  cidr_block           = var.network.cidr
  enable_dns_support   = true
  enable_dns_hostnames = true
  tags                 = merge(var.tags, { Name = local.name })
}

# The defaults of a network let everything inside talk to each other: emptied, so that nothing can use them by accident.
resource "aws_default_security_group" "this" {
  vpc_id = aws_vpc.this.id
  tags   = merge(var.tags, { Name = "${local.name}-unused" })
}

resource "aws_default_network_acl" "this" {
  default_network_acl_id = aws_vpc.this.default_network_acl_id
  tags                   = merge(var.tags, { Name = "${local.name}-unused" })
}

resource "aws_default_route_table" "this" {
  default_route_table_id = aws_vpc.this.default_route_table_id
  route                  = []
  tags                   = merge(var.tags, { Name = "${local.name}-unused" })
}

resource "aws_subnet" "private" {
  for_each = local.zones

  vpc_id                  = aws_vpc.this.id
  availability_zone       = each.key
  cidr_block              = cidrsubnet(local.tiers.private, 2, each.value)
  map_public_ip_on_launch = false
  tags                    = merge(var.tags, { Name = "${local.name}-private-${each.key}", Tier = "private" })
}

resource "aws_subnet" "data" {
  for_each = local.zones

  vpc_id                  = aws_vpc.this.id
  availability_zone       = each.key
  cidr_block              = cidrsubnet(local.tiers.data, 2, each.value)
  map_public_ip_on_launch = false
  tags                    = merge(var.tags, { Name = "${local.name}-data-${each.key}", Tier = "data" })
}

resource "aws_route_table" "private" {
  for_each = local.zones

  vpc_id = aws_vpc.this.id
  tags   = merge(var.tags, { Name = "${local.name}-private-${each.key}" })
}

resource "aws_route_table_association" "private" {
  for_each = local.zones

  route_table_id = aws_route_table.private[each.key].id
  subnet_id      = aws_subnet.private[each.key].id
}

# One table for all data subnets: it has no route but the local one, whatever the zone.
resource "aws_route_table" "data" {
  vpc_id = aws_vpc.this.id
  tags   = merge(var.tags, { Name = "${local.name}-data" })
}

resource "aws_route_table_association" "data" {
  for_each = local.zones

  route_table_id = aws_route_table.data.id
  subnet_id      = aws_subnet.data[each.key].id
}

resource "aws_flow_log" "this" {
  vpc_id                   = aws_vpc.this.id
  traffic_type             = "ALL"
  log_destination_type     = "s3"
  log_destination          = var.flow_log_bucket_arn
  max_aggregation_interval = 60
  tags                     = merge(var.tags, { Name = local.name })

  destination_options {
    file_format                = "parquet"
    hive_compatible_partitions = true
    per_hour_partition         = true
  }
}
