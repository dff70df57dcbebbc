# From the service's document to the gateway's: the same routes, each with the way inside added. Routes can't drift apart,
# for they are written once (docs/decisions/infra-0203-one-document.md).

locals {
  document = jsondecode(file("${path.module}/openapi.json"))
  marks    = { link = "{{vpc-link-id}}", target = "{{load-balancer-arn}}", host = "{{load-balancer-host}}" }
  methods  = ["get", "put", "post", "delete", "patch", "head", "options", "x-amazon-apigateway-any-method"]

  # The VPC link leads to the load balancer; the name in the uri is what its certificate is checked against.
  authority = "${var.load_balancer.protocol}://${local.marks.host}:${var.load_balancer.port}"
  # Composed from names: the function's settings name this API, so the API can't wait for the function.
  alias_arn  = "arn:${var.context.partition}:lambda:${var.context.region}:${var.context.account_id}:function:${var.function.name}:${var.function.alias}"
  invocation = "arn:${var.context.partition}:apigateway:${var.context.region}:lambda:path/2015-03-31/functions/${local.alias_arn}/invocations"

  # {model_name}, {proxy+} … of each route; the last is written without its plus in a mapping.
  path_names = { for path in keys(local.document.paths) : path => [for name in regexall("\\{([^}]+)\\}", path) : trimsuffix(name[0], "+")] }

  by_link = { for path, names in local.path_names : path => {
    type                = "http_proxy"
    httpMethod          = "ANY"
    uri                 = "${local.authority}${replace(path, "+}", "}")}"
    connectionType      = "VPC_LINK"
    connectionId        = local.marks.link
    integrationTarget   = local.marks.target
    passthroughBehavior = "when_no_match"
    timeoutInMillis     = 29000
    requestParameters   = { for name in names : "integration.request.path.${name}" => "method.request.path.${name}" }
  } }
  by_function = { for path in keys(local.document.paths) : path => {
    type                = "aws_proxy"
    httpMethod          = "POST"
    uri                 = local.invocation
    passthroughBehavior = "when_no_match"
    timeoutInMillis     = 29000
  } }

  contract = jsonencode(merge(local.document, {
    x-amazon-apigateway-api-key-source     = "HEADER"
    x-amazon-apigateway-binary-media-types = ["*/*"]
    # The API's own address: AWS would still speak TLS 1.0 there.
    x-amazon-apigateway-security-policy      = "SecurityPolicy_TLS13_1_2_PFS_PQ_2025_09"
    x-amazon-apigateway-endpoint-access-mode = "STRICT"
    # Parameters only: with binary types of */* a body is opaque here, and the service checks it with better errors.
    x-amazon-apigateway-request-validators = { parameters = { validateRequestParameters = true, validateRequestBody = false } }
    x-amazon-apigateway-request-validator  = "parameters"
    paths = { for path, item in local.document.paths : path => merge(item, {
      for method, operation in item : method => merge(operation, {
        x-amazon-apigateway-integration = merge(
          var.target == "lambda" ? local.by_function[path] : null,
          var.target == "lambda" ? null : merge(local.by_link[path], { httpMethod = method == "x-amazon-apigateway-any-method" ? "ANY" : upper(method) }),
        )
      }) if contains(local.methods, method)
    }) }
  }))

  # The contract with the identifiers that AWS gave; on Lambda it has none.
  body = (var.target == "lambda" ? local.contract : replace(replace(replace(local.contract,
    local.marks.link, try(aws_apigatewayv2_vpc_link.this["this"].id, "")),
    local.marks.target, var.load_balancer.arn),
    local.marks.host, var.load_balancer.host)
  )
}
