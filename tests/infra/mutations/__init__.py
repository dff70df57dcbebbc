"""Every mutation, by the group of requirements that it breaks."""

from mutations import access, gateway, money, network, operations, scaling, storage
from mutations.registry import Mutation

MUTATIONS: tuple[Mutation, ...] = (
    *gateway.MUTATIONS,
    *storage.MUTATIONS,
    *access.MUTATIONS,
    *network.MUTATIONS,
    *operations.MUTATIONS,
    *scaling.MUTATIONS,
    *money.MUTATIONS,
)

__all__ = ["MUTATIONS", "Mutation"]
