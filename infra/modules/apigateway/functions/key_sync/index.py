"""Writes client keys into API Gateway, from outside the VPC: API Gateway's control plane has no endpoint inside.

Called synchronously by the operation that shows a key once; if this fails, no key is made. Keys belong to usage plans
(tiers); their names are the key's public identifier, with the stack's prefix, so that strays can be told apart.

Events: {"action": "create", "key_id", "value", "tier"} -> {"gateway_id"}
        {"action": "delete", "key_id"} -> {"deleted": n}          (deleting twice is fine)
        {"action": "list"} -> {"keys": [{"key_id", "gateway_id", "tier"}]}          (never a value)
Errors: ValueError for a wrong event; whatever API Gateway refuses is raised unchanged.
Settings (environment): PREFIX, USAGE_PLANS: JSON object, tier -> usage plan id.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

SHORTEST_VALUE = 20  # API Gateway's own bounds
LONGEST_VALUE = 128


def gateway() -> Any:
    """Return a client of API Gateway; boto3 comes with the function's runtime."""
    import boto3

    return boto3.client("apigateway")


def plans() -> dict[str, str]:
    """Return the usage plan of each tier."""
    return dict(json.loads(os.environ["USAGE_PLANS"]))


def own_keys(client: Any, prefix: str) -> Iterator[dict[str, Any]]:
    """Yield every key of this stack whose name starts with `prefix`, without values."""
    for page in client.get_paginator("get_api_keys").paginate(nameQuery=prefix, includeValues=False):
        yield from (key for key in page["items"] if key["name"].startswith(prefix))


def create(client: Any, prefix: str, event: dict[str, Any]) -> dict[str, Any]:
    """Make the key and put it into its tier's plan; a key that could not be put there is deleted again."""
    tier, value = event["tier"], event["value"]
    if tier not in plans():
        raise ValueError(f"tier must be one of {sorted(plans())}, got {tier!r}")
    if not SHORTEST_VALUE <= len(value) <= LONGEST_VALUE:
        raise ValueError(f"value must have {SHORTEST_VALUE} to {LONGEST_VALUE} characters, got {len(value)}")
    key = client.create_api_key(name=prefix + event["key_id"], value=value, enabled=True)
    try:
        client.create_usage_plan_key(usagePlanId=plans()[tier], keyId=key["id"], keyType="API_KEY")
    except Exception:
        client.delete_api_key(apiKey=key["id"])
        raise
    return {"gateway_id": key["id"]}


def delete(client: Any, prefix: str, event: dict[str, Any]) -> dict[str, Any]:
    """Delete the key; also its doubles, should an earlier call have been cut off."""
    name = prefix + event["key_id"]
    found = [key["id"] for key in own_keys(client, name) if key["name"] == name]
    for key_id in found:
        client.delete_api_key(apiKey=key_id)
    return {"deleted": len(found)}


def tiers(client: Any) -> dict[str, str]:
    """Return the tier of every key that a plan of this stack holds, by the gateway's identifier."""
    pages = client.get_paginator("get_usage_plan_keys")
    return {
        key["id"]: tier
        for tier, plan in plans().items()
        for page in pages.paginate(usagePlanId=plan)
        for key in page["items"]
    }


def listed(client: Any, prefix: str, _event: dict[str, Any]) -> dict[str, Any]:
    """Name all keys of this stack, with the tier each one is in (None: in no plan)."""
    tier_of = tiers(client)
    return {
        "keys": [
            {"key_id": key["name"].removeprefix(prefix), "gateway_id": key["id"], "tier": tier_of.get(key["id"])}
            for key in own_keys(client, prefix)
        ]
    }


ACTIONS: dict[str, Callable[[Any, str, dict[str, Any]], dict[str, Any]]] = {
    "create": create,
    "delete": delete,
    "list": listed,
}


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Do what the event asks; see the module's docstring."""
    action = ACTIONS.get(event.get("action", ""))
    if action is None:
        raise ValueError(f"action must be one of {sorted(ACTIONS)}, got {event.get('action')!r}")
    return action(gateway(), os.environ["PREFIX"] + "-", event)
