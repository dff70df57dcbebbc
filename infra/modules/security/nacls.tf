# Network ACLs are stateless: what leaves needs its answer let in again on the high ports. Port 3389 is left out of them,
# for nothing here speaks it. S3 and DynamoDB answer from public addresses even through their gateway endpoints, and an
# ACL can't name prefix lists: this is why 443 out and high ports in are open to every address in the private tier.

locals {
  high_ports = { low = [1024, 3388], high = [3390, 65535] }
  data_ports = merge(
    local.relational ? { database = local.database_port } : {},
    var.cache ? { cache = local.cache_port } : {},
  )
  acl_private = {
    in = concat(
      [for name, port in { listener = local.listener_port, test = local.test_port, service = local.service_port, https = 443 } :
      { from = port, to = port, cidr = local.tiers.private }],
      [for name, range in local.high_ports : { from = range[0], to = range[1], cidr = "0.0.0.0/0" }],
    )
    out = concat(
      [{ from = 443, to = 443, cidr = "0.0.0.0/0" }],
      [for name, port in { listener = local.listener_port, test = local.test_port, service = local.service_port } :
      { from = port, to = port, cidr = local.tiers.private }],
      [for name, port in local.data_ports : { from = port, to = port, cidr = local.tiers.data }],
      [for name, range in local.high_ports : { from = range[0], to = range[1], cidr = local.tiers.private }],
      [for name, range in local.high_ports : { from = range[0], to = range[1], cidr = local.tiers.public }],
    )
  }
  acl_data = {
    in = concat(
      [for name, port in local.data_ports : { from = port, to = port, cidr = local.tiers.private }],
      # A proxy, and a standby's replication, stay inside the tier.
      [for name, port in local.data_ports : { from = port, to = port, cidr = local.tiers.data }],
      [for name, range in local.high_ports : { from = range[0], to = range[1], cidr = local.tiers.data }],
    )
    out = concat(
      [for name, range in local.high_ports : { from = range[0], to = range[1], cidr = local.tiers.private }],
      [for name, range in local.high_ports : { from = range[0], to = range[1], cidr = local.tiers.data }],
    )
  }
  acl_public = {
    in = concat(
      [{ from = 443, to = 443, cidr = local.tiers.private }],
      [for name, range in local.high_ports : { from = range[0], to = range[1], cidr = "0.0.0.0/0" }],
    )
    out = concat(
      [{ from = 443, to = 443, cidr = "0.0.0.0/0" }],
      [for name, range in local.high_ports : { from = range[0], to = range[1], cidr = local.tiers.private }],
    )
  }
  acls = merge(
    {
      private = merge(local.acl_private, { subnet_ids = [for s in aws_subnet.private : s.id] })
      data    = merge(local.acl_data, { subnet_ids = [for s in aws_subnet.data : s.id] })
    },
    var.network.egress == "nat" ? {
      public = merge(local.acl_public, { subnet_ids = [for s in aws_subnet.public : s.id] })
    } : {},
  )
}

resource "aws_network_acl" "this" {
  for_each = local.acls

  vpc_id     = aws_vpc.this.id
  subnet_ids = each.value.subnet_ids
  tags       = merge(var.tags, { Name = "${local.name}-${each.key}" })

  dynamic "ingress" {
    for_each = { for i, rule in distinct(each.value.in) : 100 + i => rule }

    content {
      rule_no    = ingress.key
      action     = "allow"
      protocol   = "tcp"
      from_port  = ingress.value.from
      to_port    = ingress.value.to
      cidr_block = ingress.value.cidr
    }
  }

  dynamic "egress" {
    for_each = { for i, rule in distinct(each.value.out) : 100 + i => rule }

    content {
      rule_no    = egress.key
      action     = "allow"
      protocol   = "tcp"
      from_port  = egress.value.from
      to_port    = egress.value.to
      cidr_block = egress.value.cidr
    }
  }
}
