# Only with egress = "nat": one gateway a zone, so that no zone depends on another. Data subnets never get a route out.

resource "aws_internet_gateway" "this" {
  for_each = var.network.egress == "nat" ? { nat = aws_vpc.this.id } : {}

  vpc_id = each.value
  tags   = merge(var.tags, { Name = local.name })
}

resource "aws_subnet" "public" {
  for_each = local.public_zones

  vpc_id                  = aws_vpc.this.id
  availability_zone       = each.key
  cidr_block              = cidrsubnet(local.tiers.public, 2, each.value)
  map_public_ip_on_launch = false
  tags                    = merge(var.tags, { Name = "${local.name}-public-${each.key}", Tier = "public" })
}

resource "aws_route_table" "public" {
  for_each = aws_internet_gateway.this

  vpc_id = aws_vpc.this.id
  tags   = merge(var.tags, { Name = "${local.name}-public" })
}

resource "aws_route" "internet" {
  for_each = aws_internet_gateway.this

  route_table_id         = aws_route_table.public[each.key].id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = each.value.id
}

resource "aws_route_table_association" "public" {
  for_each = local.public_zones

  route_table_id = aws_route_table.public["nat"].id
  subnet_id      = aws_subnet.public[each.key].id
}

resource "aws_eip" "nat" {
  for_each = local.public_zones

  domain = "vpc"
  tags   = merge(var.tags, { Name = "${local.name}-nat-${each.key}" })
}

resource "aws_nat_gateway" "this" {
  for_each = local.public_zones

  allocation_id = aws_eip.nat[each.key].id
  subnet_id     = aws_subnet.public[each.key].id
  tags          = merge(var.tags, { Name = "${local.name}-${each.key}" })
}

resource "aws_route" "nat" {
  for_each = local.public_zones

  route_table_id         = aws_route_table.private[each.key].id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.this[each.key].id
}
