"""The small functions of infra/: the two deployment hooks and the key synchronisation, run as Lambda would run them."""

from __future__ import annotations

import importlib.util
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest
from moto import mock_aws

MODULES = Path(__file__).parents[2] / "infra" / "modules"
REVISION = "arn:aws:ecs:eu-central-1:123456789012:service-revision/c/s/"
WITH_BLUE = {
    "executionDetails": {"targetServiceRevisionArn": REVISION + "2", "productionTrafficWeights": {REVISION + "1": 100}}
}
FIRST = {"executionDetails": {"targetServiceRevisionArn": REVISION + "1", "productionTrafficWeights": {}}}


def function(module: str, name: str) -> ModuleType:
    """The function's source as a module of its own: each is one file called index."""
    path = MODULES / module / "functions" / name / "index.py"
    spec = importlib.util.spec_from_file_location(f"{module}_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


class Green(BaseHTTPRequestHandler):
    """A new version behind the test listener; the statuses it gives are the server's."""

    def do_GET(self) -> None:
        """Answer with the status that the test set for this path."""
        statuses: dict[str, list[int]] = self.server.statuses  # type: ignore[attr-defined]
        left = statuses[self.path]
        self.send_response(left.pop(0) if len(left) > 1 else left[0])
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def green(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[int]]]:
    """A green version on a free port, ready and refusing strangers; the test may change its statuses."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Green)
    statuses = {"/v2/health/ready": [200], "/v1/models": [401]}
    server.statuses = statuses  # type: ignore[attr-defined]
    settings = {"TEST_HOST": "127.0.0.1", "TEST_PORT": str(server.server_address[1]), "SCHEME": "http"}
    for name, value in (settings | {"ATTEMPTS": "3", "DELAY_S": "0", "TIMEOUT_S": "2"}).items():
        monkeypatch.setenv(name, value)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield statuses
    server.shutdown()
    thread.join()
    server.server_close()


def test_hook_lets_a_good_green_through(green: dict[str, list[int]]) -> None:
    """Green that becomes ready within the attempts and refuses a stranger gets production traffic."""
    green["/v2/health/ready"] = [503, 200]
    assert function("ecs", "deploy_hook").handler(WITH_BLUE, None) == {"hookStatus": "SUCCEEDED"}


@pytest.mark.parametrize(("path", "status"), [("/v2/health/ready", 503), ("/v1/models", 200)])
def test_hook_stops_a_bad_green(green: dict[str, list[int]], path: str, status: int) -> None:
    """Green that isn't ready, or answers without a key, is refused."""
    green[path] = [status]
    assert function("ecs", "deploy_hook").handler(WITH_BLUE, None) == {"hookStatus": "FAILED"}


def test_hook_stops_a_green_that_nobody_reaches(green: dict[str, list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection is no answer: refused, within the bound."""
    monkeypatch.setenv("TEST_PORT", "1")
    assert function("ecs", "deploy_hook").handler(WITH_BLUE, None) == {"hookStatus": "FAILED"}


def test_hook_passes_at_the_creation_of_the_service() -> None:
    """Where no revision serves production yet the hook passes, without a call."""
    assert function("ecs", "deploy_hook").handler(FIRST, None) == {"hookStatus": "SUCCEEDED"}


class CodeDeploy:
    """What the hook of CodeDeploy needs of it: a deployment from one version to another, and the report it got."""

    def __init__(self, current: str, target: str) -> None:
        """A deployment of one function from `current` to `target`."""
        versions = {"Name": "f", "Alias": "live", "CurrentVersion": current, "TargetVersion": target}
        self._content = json.dumps(
            {"version": 0.0, "Resources": [{"f": {"Type": "AWS::Lambda::Function", "Properties": versions}}]}
        )
        self.reported = ""

    def get_deployment(self, deploymentId: str) -> dict[str, Any]:
        """The deployment, as CodeDeploy gives it."""
        return {
            "deploymentInfo": {
                "revision": {"revisionType": "AppSpecContent", "appSpecContent": {"content": self._content}}
            }
        }

    def put_lifecycle_event_hook_execution_status(self, status: str, **_ids: str) -> None:
        """Keep the report."""
        self.reported = status


class Functions:
    """Lambda with one function whose versions answer by path."""

    def __init__(self, answers: dict[str, int]) -> None:
        """A function that answers with these statuses."""
        self._answers = answers
        self.invoked: list[str] = []

    def invoke(self, FunctionName: str, Qualifier: str, Payload: bytes) -> dict[str, Any]:
        """Answer as the gateway's proxy integration expects it."""
        self.invoked.append(Qualifier)
        path = json.loads(Payload)["path"].removeprefix("/live")
        return {"Payload": io.BytesIO(json.dumps({"statusCode": self._answers[path]}).encode())}


@pytest.mark.parametrize(
    ("ready", "stranger", "report"), [(200, 401, "Succeeded"), (503, 401, "Failed"), (200, 200, "Failed")]
)
def test_version_hook_reports_what_it_saw(
    monkeypatch: pytest.MonkeyPatch, ready: int, stranger: int, report: str
) -> None:
    """The version that the deployment wants is called by its number, and CodeDeploy gets the verdict."""
    monkeypatch.setenv("FUNCTION", "f")
    monkeypatch.setenv("ROOT_PATH", "/live")
    hook, deploy = function("lambda", "deploy_hook"), CodeDeploy("3", "4")
    functions = Functions({"/v2/health/ready": ready, "/v1/models": stranger})
    monkeypatch.setattr(hook, "client", {"codedeploy": deploy, "lambda": functions}.__getitem__)
    answer = hook.handler({"DeploymentId": "d", "LifecycleEventHookExecutionId": "h"}, None)
    assert (deploy.reported, answer["hookStatus"]) == (report, report.upper())
    assert set(functions.invoked) == {"4"}


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An emulated API Gateway with a plan of each tier and a key that belongs to another stack."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "emulated")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with mock_aws():
        client = boto3.client("apigateway")
        plans = {tier: client.create_usage_plan(name=tier)["id"] for tier in ("standard", "premium")}
        client.create_api_key(name="other-stack-k1", value="x" * 24, enabled=True)
        monkeypatch.setenv("PREFIX", "modelyard-test")
        monkeypatch.setenv("USAGE_PLANS", json.dumps(plans))
        yield client


def test_key_is_made_listed_and_deleted(gateway: Any) -> None:
    """A key enters its tier's plan, the list names it without its value, and deleting twice is fine."""
    sync, value = function("apigateway", "key_sync").handler, "k" * 32
    made = sync({"action": "create", "key_id": "k1", "value": value, "tier": "premium"}, None)
    listed = sync({"action": "list"}, None)
    assert listed == {"keys": [{"key_id": "k1", "gateway_id": made["gateway_id"], "tier": "premium"}]}
    assert value not in json.dumps(listed)
    assert sync({"action": "delete", "key_id": "k1"}, None) == {"deleted": 1}
    assert sync({"action": "delete", "key_id": "k1"}, None) == {"deleted": 0}
    assert [key["name"] for key in gateway.get_api_keys()["items"]] == ["other-stack-k1"]


def test_key_that_no_plan_takes_is_not_left_behind(gateway: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the plan refuses, no key is made: a key in no plan would be refused by the stage anyway."""

    def refuse(**_arguments: str) -> None:
        raise gateway.exceptions.LimitExceededException(
            {"Error": {"Code": "LimitExceededException"}}, "CreateUsagePlanKey"
        )

    sync = function("apigateway", "key_sync")
    monkeypatch.setattr(gateway, "create_usage_plan_key", refuse)
    monkeypatch.setattr(sync, "gateway", lambda: gateway)
    with pytest.raises(gateway.exceptions.LimitExceededException):
        sync.handler({"action": "create", "key_id": "k1", "value": "k" * 32, "tier": "standard"}, None)
    assert [key["name"] for key in gateway.get_api_keys()["items"]] == ["other-stack-k1"]


@pytest.mark.parametrize(
    ("event", "word"),
    [
        ({"action": "rename"}, "action must be one of"),
        ({"action": "create", "key_id": "k", "value": "k" * 32, "tier": "gold"}, "tier must be one of"),
        ({"action": "create", "key_id": "k", "value": "short", "tier": "standard"}, "20 to 128 characters"),
    ],
)
def test_wrong_events_are_refused_with_a_sentence(gateway: Any, event: dict[str, str], word: str) -> None:
    """An unknown action or tier and a key that API Gateway would refuse are named before anything is made."""
    with pytest.raises(ValueError, match=word):
        function("apigateway", "key_sync").handler(event, None)
    assert len(gateway.get_api_keys()["items"]) == 1
