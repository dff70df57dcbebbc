"""What a plan must show, by requirement identifier; every check is a pure function from a plan to its problems."""

from checks import access, api, audit, cost, data, encryption, network, operations, performance, store
from checks.registry import CHECKS, Check, of_requirement

__all__ = [
    "CHECKS",
    "Check",
    "access",
    "api",
    "audit",
    "cost",
    "data",
    "encryption",
    "network",
    "of_requirement",
    "operations",
    "performance",
    "store",
]
