"""API-1 to API-6: the gateway in front, its keys, plans and limits, and the bounds on response time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from infraproof.plan import Plan, Resource, dig
from readers.alarms import alarms_on

from checks.registry import Problems, at_least, check, each, exactly, on_ecs, on_lambda, with_image

METHODS = {"get", "put", "post", "delete", "patch", "head", "x-amazon-apigateway-any-method"}
OPEN_PATHS = {"/v2/health/live", "/v2/health/ready"}
PREDICT_PATHS = {
    "/v2/models/{name}/infer",
    "/v2/models/{name}/versions/{version}/infer",
    "/v1/models/{name}/predictions",
    "/invocations",
}
INTEGRATION_TIMEOUT_MS = 29_000
SHIELD = 1.2


def body(plan: Plan) -> dict[str, Any]:
    """The OpenAPI document that the gateway gets; ids are known only after apply: names stand in their places."""
    texts = [api.get("body") for api in plan.of("aws_api_gateway_rest_api")]
    texts += [item.get("input") for item in plan.of("terraform_data") if item.name == "contract"]
    document: dict[str, Any] = next((json.loads(text) for text in texts if isinstance(text, str)), {})
    return document


@check("API-1", with_image)
def gateway_gets_the_checked_document(plan: Plan) -> Problems:
    """What the gateway gets and what these checks read are rendered from the same expression in the sources."""
    apis = plan.of("aws_api_gateway_rest_api")
    contract = [item.get("input") for item in plan.of("terraform_data") if item.name == "contract"]
    if all(isinstance(api.get("body"), str) for api in apis):
        return [] if [api.get("body") for api in apis] == contract else ["the API's body isn't the contract"]
    locals_ = [b for b in plan.blocks if b.kind == "locals" and b.file.parent.name == "apigateway"]
    filled = any("local.contract" in block.attribute("body") for block in locals_)
    used = {ref for api in apis for ref in dig(api.expressions, "body.references", [])}
    sent = "local.contract" in used or ("local.body" in used and filled)
    shown = [
        item for item in plan.of("terraform_data") if dig(item.expressions, "input.references") == ["local.contract"]
    ]
    return [] if sent and shown else ["the API's body isn't the contract with its ids filled in"]


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(path, method, operation) for each operation of the document."""
    for path, item in document.get("paths", {}).items():
        for method in METHODS & set(item):
            yield path, method, item[method]


@check("API-1", with_image)
def one_regional_rest_api(plan: Plan) -> Problems:
    """Exactly one REST API, reached in its own region, from an OpenAPI 3.0 document that overwrites what was there."""
    apis = plan.of("aws_api_gateway_rest_api")
    version = str(body(plan).get("openapi", ""))
    return [
        *exactly(1, apis, "REST API"),
        *each(apis, lambda api: api.get("endpoint_configuration.types") == ["REGIONAL"], "must be REGIONAL"),
        *each(apis, overwrites, "must overwrite, never merge"),
        *([] if version.startswith("3.0") else [f"the body must be OpenAPI 3.0, not {version or 'unknown'}"]),
    ]


def overwrites(api: Resource) -> bool:
    """True when the document replaces what was there (the provider keeps the mode out of its planned values)."""
    return "overwrite" in (api.get("put_rest_api_mode"), dig(api.expressions, "put_rest_api_mode.constant_value"))


@check("API-1", with_image)
def predict_routes_reach_the_service(plan: Plan) -> Problems:
    """Every predict route is a path of the gateway, and a proxy path carries what its grammar can't name."""
    paths = set(body(plan).get("paths", {}))
    missing = sorted(path for path in PREDICT_PATHS if shape(path) not in {shape(known) for known in paths})
    problems = [f"no gateway path for {path}" for path in missing]
    return problems + ([] if "/{proxy+}" in paths else ["no /{proxy+} for colon routes"])


def shape(path: str) -> tuple[str, ...]:
    """A path with its parameters' names left out."""
    return tuple("{}" if part.startswith("{") else part for part in path.split("/"))


@check("API-1", with_image)
def deployment_follows_the_document(plan: Plan) -> Problems:
    """A changed document, policy or binary type makes a new deployment before the old one goes."""
    deployments = plan.of("aws_api_gateway_deployment")
    blocks = plan.source_of("resource", "aws_api_gateway_deployment", "apigateway")
    late = [block for block in blocks if "create_before_destroy = true" not in " ".join(block.text.split())]
    return [
        *exactly(1, deployments, "deployment"),
        *each(deployments, lambda item: item.is_set("triggers"), "must be triggered by the document"),
        *(["the deployment must be created before the old one is destroyed"] if late else []),
    ]


@check("API-1", on_ecs)
def private_integration_to_the_load_balancer(plan: Plan) -> Problems:
    """Every operation goes over the VPC link to the internal load balancer, named as the integration's target."""
    problems = []
    for path, method, integration in integrations(plan):
        if integration.get("connectionType") != "VPC_LINK":
            problems.append(f"{method} {path}: not over the VPC link")
        if not integration.get("integrationTarget"):
            problems.append(f"{method} {path}: no integration target")
    return problems + at_least(1, integrations(plan), "integrations")


def integrations(plan: Plan) -> list[tuple[str, str, dict[str, Any]]]:
    """(path, method, integration) for each operation that has one in the document."""
    key = "x-amazon-apigateway-integration"
    return [(path, method, op[key]) for path, method, op in operations(body(plan)) if key in op]


@check("API-1", on_lambda)
def integration_invokes_the_alias(plan: Plan) -> Problems:
    """Every operation invokes the alias that releases move, never the unpublished code."""
    bad = [f"{method} {path}" for path, method, item in integrations(plan) if ":live/" not in str(item.get("uri"))]
    return [f"{where}: must invoke the alias" for where in bad] + at_least(1, integrations(plan), "integrations")


@check("API-2", with_image)
def json_is_described_and_validated(plan: Plan) -> Problems:
    """JSON bodies have schemas, and a validator refuses parameters that miss."""
    document = body(plan)
    problems = [
        f"{method} {path}: the request has no JSON schema"
        for path, method, operation in operations(document)
        if path in PREDICT_PATHS and "application/json" not in operation.get("requestBody", {}).get("content", {})
    ]
    if not document.get("x-amazon-apigateway-request-validators"):
        problems.append("the document names no request validator")
    return problems


@check("API-2", with_image)
def gateway_errors_have_our_shape(plan: Plan) -> Problems:
    """What the gateway refuses by itself answers in the service's own error shape."""
    wanted = {
        "THROTTLED",
        "QUOTA_EXCEEDED",
        "INVALID_API_KEY",
        "REQUEST_TOO_LARGE",
        "INTEGRATION_TIMEOUT",
        "WAF_FILTERED",
    }
    answers = plan.of("aws_api_gateway_gateway_response")
    found = {answer.get("response_type"): answer for answer in answers}
    inline = body(plan).get("x-amazon-apigateway-gateway-responses", {})
    problems = [f"no gateway response for {kind}" for kind in sorted(wanted - set(found) - set(inline))]
    templates = [json.dumps(item.get("response_templates") or {}) for item in found.values()]
    templates += [json.dumps(item.get("responseTemplates", {})) for item in inline.values()]
    return problems + [f"not our error shape: {text}" for text in templates if '\\"code\\"' not in text]


@check("API-3", with_image)
def batches_and_tensors_pass_unchanged(plan: Plan) -> Problems:
    """Bytes pass as they come (`*/*`, no compression here), and no schema of the gateway caps the items of a batch."""
    apis = plan.of("aws_api_gateway_rest_api")
    capped = [name for name in ("maxItems",) if name in json.dumps(body(plan))]
    return [
        *each(apis, lambda api: "*/*" in (api.get("binary_media_types") or []), "binary types must hold */*"),
        *each(apis, lambda api: api.get("minimum_compression_size") in (None, "", "-1"), "must not compress"),
        *[f"the document caps batches by {name}; the service does that, per endpoint" for name in capped],
    ]


@check("API-3", with_image)
def firewall_lets_batches_through(plan: Plan) -> Problems:
    """The firewall's body size rule only counts: a batch is larger than 8 KB, and the service bounds it."""
    acls = plan.of("aws_wafv2_web_acl")
    counted = [acl for acl in acls if "SizeRestrictions_BODY" in json.dumps(acl.values.get("rule"), default=str)]
    return [*at_least(1, acls, "web ACL"), *at_least(1, counted, "web ACL that counts SizeRestrictions_BODY")]


@check("API-4", with_image)
def every_operation_needs_a_key(plan: Plan) -> Problems:
    """Every operation but health demands the API key from the header."""
    document, problems = body(plan), []
    schemes = document.get("components", {}).get("securitySchemes", {})
    keyed = {
        name for name, scheme in schemes.items() if scheme.get("type") == "apiKey" and scheme.get("in") == "header"
    }
    for path, method, operation in operations(document):
        required = operation.get("security", document.get("security", []))
        if path not in OPEN_PATHS and not any(keyed & set(choice) for choice in required):
            problems.append(f"{method} {path}: answers without a key")
    if not keyed:
        problems.append("no API key scheme in the document")
    sources = each(plan.of("aws_api_gateway_rest_api"), key_from_header, "the key must come from the header")
    return problems + sources


def key_from_header(api: Resource) -> bool:
    """True when the gateway reads the key from x-api-key."""
    return api.get("api_key_source") in (None, "HEADER")


@check("API-4", with_image)
def plans_are_bound_to_the_stage(plan: Plan) -> Problems:
    """Every tier has a usage plan on the stage, and Terraform makes no key (its value would be in the state)."""
    plans = plan.of("aws_api_gateway_usage_plan")
    tiers = set(plan.variable("clients") or {})
    return [
        *at_least(max(1, len(tiers)), plans, "usage plans, one a tier"),
        *each(plans, lambda item: bool(item.blocks("api_stages")), "must be bound to the stage"),
        *each(plan.of("aws_api_gateway_api_key"), lambda _: False, "keys belong to the service, not to the state"),
    ]


@check("API-5", with_image)
def plans_are_a_shield(plan: Plan) -> Problems:
    """A plan's rate is 1.2 times the tier's exact rate: above what the service enforces, and never without a bound."""
    clients, problems = plan.variable("clients") or {}, []
    rates = sorted(item.get("throttle_settings.rate_limit", 0) for item in plan.of("aws_api_gateway_usage_plan"))
    wanted = sorted(SHIELD * float(tier["rate_per_second"]) for tier in clients.values())
    if wanted and [round(rate, 3) for rate in rates] != [round(rate, 3) for rate in wanted]:
        problems.append(f"usage plan rates {rates}, expected {wanted}")
    bursts = each(plan.of("aws_api_gateway_usage_plan"), has_burst, "needs a rate and a burst")
    return problems + bursts


def has_burst(plan: Resource) -> bool:
    """True when the usage plan bounds rate and burst."""
    return bool(plan.get("throttle_settings.rate_limit") and plan.get("throttle_settings.burst_limit"))


@check("API-5", with_image)
def stage_is_throttled(plan: Plan) -> Problems:
    """The stage as a whole has a rate and a burst, and its cache is off (it would answer for another client)."""
    settings = plan.of("aws_api_gateway_method_settings")
    everywhere = [item for item in settings if item.get("method_path") == "*/*"]
    return [
        *at_least(1, everywhere, "method settings for */*"),
        *each(everywhere, lambda item: (item.get("settings.throttling_rate_limit") or 0) > 0, "needs a rate"),
        *each(everywhere, lambda item: (item.get("settings.throttling_burst_limit") or 0) > 0, "needs a burst"),
        *each(everywhere, lambda item: not item.get("settings.caching_enabled"), "must not cache predictions"),
    ]


@check("API-5")
def limits_are_counted_in_one_place(plan: Plan) -> Problems:
    """Exactly one shared counter is planned: a Valkey group, a serverless cache or a counter table, as asked."""
    kinds = {
        "node": plan.of("aws_elasticache_replication_group"),
        "serverless": plan.of("aws_elasticache_serverless_cache"),
        "none": [t for t in plan.of("aws_dynamodb_table") if str(t.get("name", "")).endswith("counters")],
    }
    wanted = str(plan.variable("valkey"))
    problems = exactly(1, kinds[wanted], f"shared counter for valkey = {wanted}")
    for kind, found in kinds.items():
        problems += [] if kind == wanted else each(found, lambda _: False, f"not asked for by valkey = {wanted}")
    return problems


@check("API-5")
def counter_is_valkey(plan: Plan) -> Problems:
    """A cache speaks Valkey, encrypted on disk and on the wire, so that counters can't be read or forged."""
    groups, caches = plan.of("aws_elasticache_replication_group"), plan.of("aws_elasticache_serverless_cache")
    return [
        *each(groups + caches, lambda item: item.get("engine") == "valkey", "must be Valkey"),
        *each(groups, lambda item: item.get("transit_encryption_enabled") is True, "must encrypt in transit"),
        *each(
            groups, lambda item: str(item.get("at_rest_encryption_enabled")).lower() == "true", "must encrypt at rest"
        ),
        *each(groups + caches, lambda item: item.is_set("kms_key_id"), "must use our own key"),
    ]


@check("API-6", with_image)
def slow_answers_alarm(plan: Plan) -> Problems:
    """An alarm watches the 95th percentile of the gateway's latency against the objective."""
    limit = (plan.variable("objectives") or {}).get("latency_p95_ms") or 1000
    found = [a for a in alarms_on(plan, "Latency") if a.threshold == limit and "p95" in a.statistics]
    return at_least(1, found, f"alarm on p95 of Latency at {limit} ms")


@check("API-6", with_image)
def integrations_time_out(plan: Plan) -> Problems:
    """No integration waits longer than the gateway's 29 seconds, and the function ends before it."""
    late = [
        f"{method} {path}: waits longer than {INTEGRATION_TIMEOUT_MS} ms"
        for path, method, item in integrations(plan)
        if int(item.get("timeoutInMillis", INTEGRATION_TIMEOUT_MS)) > INTEGRATION_TIMEOUT_MS
    ]
    functions = [f for f in plan.of("aws_lambda_function") if f.module == "lambda" and f.get("package_type") == "Image"]
    return late + each(functions, lambda item: (item.get("timeout") or 0) <= 29, "must end within 29 s")
