"""The prediction log: pages, counts, one record, export (DATA-2, API-8)."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response
from fastapi.responses import StreamingResponse

from modelyard.auth.scopes import Scope
from modelyard.auth.table import Principal
from modelyard.core.errors import NotFoundError
from modelyard.http.forms.export import CONTENT_TYPES, export_lines
from modelyard.http.routes.asked import ExportQuery, FilterQuery, PageQuery
from modelyard.http.routes.gate import Caller, JsonResponse, RouteTable, Wired, require_every_model, scope
from modelyard.journal.ports import RecordFilter

routes = RouteTable("predictions")


@routes.get("/v1/predictions")
@scope(Scope.AUDIT)
def list_predictions(services: Wired, caller: Caller, asked: Annotated[PageQuery, Query()]) -> Response:
    """One page of records, newest first; `cursor` leads to the next."""
    page = services.log.page(_visible(caller, asked.to_filter(services.clock.now())), asked.limit, asked.cursor)
    return JsonResponse({"predictions": page.records, "cursor": page.cursor})


@routes.get("/v1/predictions/count")
@scope(Scope.AUDIT)
def count_predictions(services: Wired, caller: Caller, asked: Annotated[FilterQuery, Query()]) -> Response:
    """How many records match."""
    return JsonResponse({"count": services.log.count(_visible(caller, asked.to_filter(services.clock.now())))})


@routes.get("/v1/predictions/export")
@scope(Scope.AUDIT)
def export_predictions(services: Wired, caller: Caller, asked: Annotated[ExportQuery, Query()]) -> Response:
    """All records that match, oldest first, as a stream of JSON Lines or CSV."""
    wanted = _visible(caller, asked.to_filter(services.clock.now()))
    return StreamingResponse(
        export_lines(services.log, wanted, asked.format),
        media_type=CONTENT_TYPES[asked.format],
        headers={"content-disposition": f'attachment; filename="predictions.{asked.format}"'},
    )


@routes.get("/v1/predictions/{id}")
@scope(Scope.AUDIT)
def show_prediction(services: Wired, caller: Caller, id: str) -> Response:
    """One record."""
    record = services.log.get(id)
    if not caller.models.allows(str(record["endpoint"])):
        raise NotFoundError("prediction_not_found", f"There is no prediction `{id[:80]}`.", field="id", got=id[:80])
    return JsonResponse(record)


def _visible(caller: Principal, wanted: RecordFilter) -> RecordFilter:
    """The filter, if this key may see all that it matches: a key bound to some models must name one of them."""
    if wanted.endpoint is not None:
        caller.require(Scope.AUDIT, wanted.endpoint)
    elif wanted.model is not None:
        caller.require(Scope.AUDIT, wanted.model)
    else:
        require_every_model(caller)
    return wanted
