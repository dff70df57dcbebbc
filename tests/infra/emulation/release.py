"""Does over the AWS API what a release of another image does and records (infra-0201), and plans again."""

from __future__ import annotations

from typing import Any

from infraproof.combinations import IMAGE

from emulation.applying import Applied, planned_again
from emulation.drift import drift
from emulation.readback import Account

RELEASED = IMAGE.replace("0123456789abcdef", "fedcba9876543210")
#: What a revision of a task is registered with again; everything else ECS fills in itself.
KEPT = (
    *("family", "taskRoleArn", "executionRoleArn", "networkMode", "volumes", "placementConstraints"),
    *("requiresCompatibilities", "cpu", "memory", "ephemeralStorage", "runtimePlatform"),
)
#: The outputs that say what runs: they may follow a release, for they are how an owner sees it.
TOLD = ("release value", "release_required value")


def release(applied: Applied) -> str:
    """Release RELEASED as the release tool does; the image that the account then runs."""
    account, made = Account(applied.emulator), applied.outputs["release"]
    return released_function(account, made) if made["compute"] == "lambda" else released_service(account, made)


def released_service(account: Account, made: dict[str, Any]) -> str:
    """ECS: a further revision with the image, the service on it, the colours swapped, the tag moved."""
    ecs = account.client("ecs")
    written = ecs.describe_task_definition(taskDefinition=made["task_definition"])["taskDefinition"]
    containers = [{**container, "image": RELEASED} for container in written["containerDefinitions"]]
    kept = {name: written[name] for name in KEPT if written.get(name)}
    revision = ecs.register_task_definition(**kept, containerDefinitions=containers)["taskDefinition"]
    where = {"cluster": made["cluster"], "service": made["service"]}
    service = ecs.update_service(**where, taskDefinition=revision["taskDefinitionArn"], desiredCount=4)["service"]
    tag = {"key": "ReleasedRevision", "value": made["task_definition"]}
    ecs.tag_resource(resourceArn=service["serviceArn"], tags=[tag])
    swap_colours(account)
    running = ecs.describe_services(cluster=made["cluster"], services=[made["service"]])["services"][0]
    about = ecs.describe_task_definition(taskDefinition=running["taskDefinition"])["taskDefinition"]
    return str(about["containerDefinitions"][0]["image"])


def swap_colours(account: Account) -> None:
    """Give each group of every weighted rule the other's weight."""
    client = account.client("elbv2")
    for balancer in client.describe_load_balancers()["LoadBalancers"]:
        for listener in client.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"]:
            for rule in client.describe_rules(ListenerArn=listener["ListenerArn"])["Rules"]:
                for action in (a for a in rule["Actions"] if a["Type"] == "forward"):
                    groups = action["ForwardConfig"]["TargetGroups"]
                    weights = reversed([group["Weight"] for group in groups])
                    swapped = [{**group, "Weight": weight} for group, weight in zip(groups, weights, strict=True)]
                    forward = {"Type": "forward", "ForwardConfig": {"TargetGroups": swapped}}
                    client.modify_rule(RuleArn=rule["RuleArn"], Actions=[forward])


def released_function(account: Account, made: dict[str, Any]) -> str:
    """Lambda: another image, published as a version, and the alias on it."""
    client, name = account.client("lambda"), made["function"]
    version = client.update_function_code(FunctionName=name, ImageUri=RELEASED, Publish=True)["Version"]
    client.update_alias(FunctionName=name, Name=made["alias"], FunctionVersion=version)
    return str(client.get_function(FunctionName=name, Qualifier=made["alias"])["Code"]["ImageUri"])


def changes_after_release(applied: Applied) -> list[str]:
    """What a plan would change after the release, but for the outputs that tell of it."""
    _, plan = planned_again(applied)
    return [change for change in drift(plan, applied.emulator.requests()) if change not in TOLD]
