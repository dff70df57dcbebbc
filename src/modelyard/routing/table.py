"""The routing table: one immutable snapshot that every request of a worker is routed by (promises P2, P6)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from modelyard.core.errors import NotFoundError, UnavailableError
from modelyard.core.types import Servable
from modelyard.routing.ports import Endpoint
from modelyard.routing.split import assign

RETRY_LOADING_S = 1.0
RETRY_UNHEALTHY_S = 60.0


class Route(msgspec.Struct, frozen=True):
    """Where one request goes. `arm` is the position in the endpoint's weights, -1 if the caller named the version."""

    endpoint: str
    arm: int
    servable: Servable


class RoutingTable:
    """All endpoints and the versions that stand behind them, at one snapshot version.

    Build it only from servables that are loaded and warm: a table never points at what cannot answer, and a request
    keeps the servable that its route gave it, whatever table comes next. `asked` hears of versions that predictions
    name and that are not in memory.
    """

    def __init__(
        self,
        version: int,
        endpoints: Iterable[Endpoint],
        servables: Mapping[tuple[str, str], Servable],
        known: Iterable[tuple[str, str]] = (),
        unhealthy: Iterable[tuple[str, str]] = (),
        asked: Callable[[str, str], None] = lambda model, version: None,
    ) -> None:
        self.version = version
        self.endpoints = {endpoint.name: endpoint for endpoint in endpoints}
        self.servables = dict(servables)
        self.unhealthy = frozenset(unhealthy)
        self._asked = asked
        self._known = frozenset(known) | frozenset(self.servables)
        self._single = {
            name: Route(name, arm, self.servables[endpoint.model, endpoint.weights[arm][0]])
            for name, endpoint in self.endpoints.items()
            if (arm := _only_arm(endpoint)) is not None and (endpoint.model, endpoint.weights[arm][0]) in self.servables
        }

    def route(self, name: str, version: str | None, subject: str) -> Route:
        """The route of one request; without a version the endpoint's weights decide, by its subject (a request without
        one is its own: the prediction's id).

        Raises NotFoundError("model_not_found" | "version_not_found"), UnavailableError("model_not_ready" |
        "model_unhealthy").
        """
        standing = self._standing(name, version)
        if standing is not None:
            return standing
        endpoint = self.endpoints[name]
        arm = assign(name, subject, endpoint.weights)
        return Route(name, arm, self._servable(endpoint.model, endpoint.weights[arm][0]))

    def standing_route(self, name: str, version: str | None) -> Route | None:
        """The route that all such requests take in this table; None if each is routed by its own id. Raises like
        `route`; a version that is named and not in memory is asked for, since a prediction wants it."""
        try:
            return self._standing(name, version)
        except UnavailableError as error:
            if version is not None and error.code == "model_not_ready":
                self._asked(self.endpoints[name].model, version)
            raise

    def _standing(self, name: str, version: str | None) -> Route | None:
        if version is None:
            single = self._single.get(name)
            if single is not None:
                return single
        endpoint = self.endpoints.get(name)
        if endpoint is None:
            raise NotFoundError(
                "model_not_found",
                f"There is no model `{name}`.",
                field="model",
                expected="the name of a published model",
                got=name,
            )
        if version is not None:
            return Route(name, -1, self._servable(endpoint.model, version))
        return None

    def versions(self, model: str) -> list[str]:
        """The versions of a model, loaded or not, by name."""
        return sorted(version for known, version in self._known if known == model)

    def _servable(self, model: str, version: str) -> Servable:
        servable = self.servables.get((model, version))
        if servable is not None:
            return servable
        if (model, version) in self.unhealthy:
            raise UnavailableError(
                "model_unhealthy",
                f"Version `{version}` of the model `{model}` ended its workers too often and is not served.",
                retry_after_s=RETRY_UNHEALTHY_S,
                field="version",
                expected="another version, or this one once an operator has revived it",
                got=version,
            )
        if (model, version) in self._known:
            raise UnavailableError(
                "model_not_ready",
                f"Version `{version}` of the model `{model}` is not loaded yet.",
                retry_after_s=RETRY_LOADING_S,
                field="version",
            )
        raise NotFoundError(
            "version_not_found",
            f"The model `{model}` has no version `{version}`.",
            field="version",
            expected=self.versions(model),
            got=version,
        )


def _only_arm(endpoint: Endpoint) -> int | None:
    arms = [position for position, (_, share) in enumerate(endpoint.weights) if share > 0]
    return arms[0] if len(arms) == 1 else None
