"""Hook of CodeDeploy, BeforeAllowTraffic: may the alias go to the new version?

It invokes the version that the deployment wants, without a client in between, and reports to CodeDeploy, which rolls
back on Failed and when no report comes. It runs outside the VPC: it speaks to AWS only.

Event: {"DeploymentId", "LifecycleEventHookExecutionId"}. Answer: {"hookStatus": "SUCCEEDED" | "FAILED"}, as the hook of
the ECS branch gives it. A first deployment (the alias already is at the target) passes.
Settings (environment): FUNCTION, ROOT_PATH.
"""

from __future__ import annotations

import json
import os
from typing import Any

# The second probe holds "no key, no answer" before the version meets a client.
PROBES = (("/v2/health/ready", 200), ("/v1/models", 401))


def client(name: str) -> Any:
    """Return a client of an AWS service; boto3 comes with the function's runtime."""
    import boto3

    return boto3.client(name)


def versions(codedeploy: Any, deployment_id: str) -> tuple[str, str]:
    """Return the version that serves now and the one that the deployment wants, from its AppSpec."""
    revision = codedeploy.get_deployment(deploymentId=deployment_id)["deploymentInfo"]["revision"]
    content = (revision.get("appSpecContent") or revision.get("string"))["content"]
    (resource,) = json.loads(content)["Resources"]
    (named,) = resource.values()
    return named["Properties"]["CurrentVersion"], named["Properties"]["TargetVersion"]


def request(path: str) -> dict[str, Any]:
    """Return what the gateway would send for GET `path` without a key."""
    root = os.environ.get("ROOT_PATH", "")
    return {
        "resource": "/{proxy+}",
        "path": root + path,
        "httpMethod": "GET",
        "headers": {"user-agent": "modelyard-deploy-hook"},
        "multiValueHeaders": {"user-agent": ["modelyard-deploy-hook"]},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": {"proxy": path.lstrip("/")},
        "requestContext": {"path": root + path, "stage": root.lstrip("/"), "identity": {"sourceIp": "127.0.0.1"}},
        "body": None,
        "isBase64Encoded": False,
    }


def passes(functions: Any, version: str, path: str, expected: int) -> bool:
    """Tell whether the version answers GET `path` with `expected`."""
    answer = functions.invoke(
        FunctionName=os.environ["FUNCTION"], Qualifier=version, Payload=json.dumps(request(path)).encode()
    )
    body = json.loads(answer["Payload"].read() or b"null")
    got = body.get("statusCode", 0) if isinstance(body, dict) and "FunctionError" not in answer else 0
    print(json.dumps({"event": "probe", "path": path, "expected": expected, "got": got, "version": version}))
    return bool(got == expected)


def handler(event: dict[str, Any], _context: object) -> dict[str, str]:
    """Probe the wanted version and report; see the module's docstring."""
    codedeploy = client("codedeploy")
    current, wanted = versions(codedeploy, event["DeploymentId"])
    functions = client("lambda")
    good = current == wanted or all(passes(functions, wanted, path, status) for path, status in PROBES)
    codedeploy.put_lifecycle_event_hook_execution_status(
        deploymentId=event["DeploymentId"],
        lifecycleEventHookExecutionId=event["LifecycleEventHookExecutionId"],
        status="Succeeded" if good else "Failed",
    )
    return {"hookStatus": "SUCCEEDED" if good else "FAILED"}
