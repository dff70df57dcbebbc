# The internal load balancer: two listeners, two rules, two colours. Nothing outside the VPC can reach it.

resource "aws_lb" "this" {
  name                       = var.context.name
  internal                   = true
  load_balancer_type         = "application"
  subnets                    = var.subnet_ids
  security_groups            = [var.security_group_ids["load_balancer"]]
  drop_invalid_header_fields = true
  desync_mitigation_mode     = "strictest"
  enable_deletion_protection = var.deletion_protection
  enable_http2               = true
  enable_zonal_shift         = true
  idle_timeout               = 60 # above the gateway's 29 s, below the service's keep-alive of 75 s: the service never closes first
  tags                       = var.tags

  access_logs {
    bucket  = var.log_bucket
    prefix  = "alb"
    enabled = true
  }
  connection_logs {
    bucket  = var.log_bucket
    prefix  = "alb-connections"
    enabled = true
  }
}

resource "aws_lb_target_group" "this" {
  for_each = local.colours

  name                          = "${var.context.name}-${each.key}"
  vpc_id                        = var.vpc_id
  target_type                   = "ip"
  protocol                      = "HTTPS"
  port                          = 8443
  deregistration_delay          = "30" # the gateway gives up after 29 s; nobody waits longer
  load_balancing_algorithm_type = "least_outstanding_requests"
  tags                          = var.tags

  health_check {
    path                = "/v2/health/ready"
    protocol            = "HTTPS"
    matcher             = "200"
    interval            = 5
    timeout             = 2
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }
}

resource "aws_lb_listener" "this" {
  for_each = local.ports

  load_balancer_arn = aws_lb.this.arn
  port              = each.value
  protocol          = local.tls ? "HTTPS" : "HTTP"
  ssl_policy        = local.tls ? "ELBSecurityPolicy-TLS13-1-2-2021-06" : null
  certificate_arn   = local.tls ? var.certificate_arn : null
  tags              = var.tags

  # Only the rules below lead anywhere; ECS rewrites rules, never this.
  default_action {
    type = "fixed-response"

    fixed_response {
      content_type = "application/json"
      message_body = jsonencode({ error = "No service here.", code = "not_found", detail = {}, request_id = "" })
      status_code  = "404"
    }
  }
}

resource "aws_lb_listener_rule" "this" {
  for_each = local.ports

  listener_arn = aws_lb_listener.this[each.key].arn
  priority     = 10
  tags         = var.tags

  action {
    type = "forward"

    # Forward only: ECS can't move the weights of a rule that also redirects or answers by itself.
    forward {
      dynamic "target_group" {
        for_each = { blue = 100, green = 0 }

        content {
          arn    = aws_lb_target_group.this[target_group.key].arn
          weight = target_group.value
        }
      }
    }
  }

  condition {
    path_pattern {
      values = ["/*"]
    }
  }

  lifecycle {
    ignore_changes = [action] # weights belong to ECS after the first deployment
  }
}
