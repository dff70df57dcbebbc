"""The prediction log: pages, counts, one record, export, outcomes (DATA-2, API-8)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Body, Query, Request, Response
from fastapi.responses import StreamingResponse

from modelyard.auth.scopes import Scope
from modelyard.auth.table import Principal
from modelyard.core.errors import ModelyardError, NotFoundError
from modelyard.http.forms.export import CONTENT_TYPES, export_lines, log_page
from modelyard.http.forms.outcomes import Giver, give_many, outcome_status, outcome_view, read_outcome
from modelyard.http.resource.paging import page_answer
from modelyard.http.resource.records import (
    CountAnswer,
    GivenAnswer,
    HistoryAnswer,
    OutcomesAnswer,
    PredictionsAnswer,
    ShownAnswer,
)
from modelyard.http.routes.asked import ExportQuery, FilterQuery, OutcomeBody, PageQuery, ShowQuery
from modelyard.http.routes.gate import Caller, JsonResponse, RouteTable, Wired, require_every_model, scope
from modelyard.http.services import Services
from modelyard.journal.ports import RecordFilter, Target

routes = RouteTable("predictions")


@routes.get("/v1/predictions", PredictionsAnswer)
@scope(Scope.AUDIT)
def list_predictions(
    request: Request, services: Wired, caller: Caller, asked: Annotated[PageQuery, Query()]
) -> Response:
    """One page of requests, newest first, or of their items; `cursor` leads to the next."""
    wanted = _visible(caller, asked.to_filter(services.clock.now()))
    if asked.quarantined:
        page = services.quarantine.page(wanted, asked.limit, asked.cursor)
    else:
        page = log_page(services.log, wanted, asked.limit, asked.cursor)
    return page_answer(request, "predictions", page.records, page.cursor)


@routes.get("/v1/predictions/count", CountAnswer)
@scope(Scope.AUDIT)
def count_predictions(services: Wired, caller: Caller, asked: Annotated[FilterQuery, Query()]) -> Response:
    """How many requests match, or how many items."""
    return JsonResponse({"count": services.log.count(_visible(caller, asked.to_filter(services.clock.now())))})


@routes.get("/v1/predictions/export", media=("application/jsonl", "text/csv", "application/vnd.apache.parquet"))
@scope(Scope.AUDIT)
def export_predictions(services: Wired, caller: Caller, asked: Annotated[ExportQuery, Query()]) -> Response:
    """All requests that match, or their items, oldest first, as a stream of JSON Lines, CSV or Parquet."""
    wanted = _visible(caller, asked.to_filter(services.clock.now()))
    return StreamingResponse(
        export_lines(services.log, wanted, asked.format),
        media_type=CONTENT_TYPES[asked.format],
        headers={"content-disposition": f'attachment; filename="predictions.{asked.format}"'},
    )


@routes.get("/v1/predictions/{id}", ShownAnswer)
@scope(Scope.AUDIT)
def show_prediction(services: Wired, caller: Caller, id: str, asked: Annotated[ShowQuery, Query()]) -> Response:
    """One record; with `raw`, what was kept of it undecoded."""
    record = _visible_record(services, caller, id)
    return JsonResponse(record | {"kept": services.quarantine.raw(id)} if asked.raw else record)


@routes.get("/v1/predictions/{id}/outcomes", HistoryAnswer)
@scope(Scope.AUDIT)
def show_outcomes(services: Wired, caller: Caller, id: str) -> Response:
    """All outcomes that a request's items were ever given, corrections included."""
    _visible_record(services, caller, id)
    return JsonResponse({"outcomes": services.outcomes.history(id)})


@routes.post("/v1/predictions/{id}/outcome", GivenAnswer, statuses=(201, 200, 202))
@scope(Scope.PREDICT, also=Scope.ADMIN)
def give_outcome(services: Wired, caller: Caller, id: str, body: OutcomeBody) -> Response:
    """What came true of one of the client's own predictions. 201 for a new value, 200 if it was the latest already,
    202 while the request is on its way into the log. Another value is a new revision; the old one stays on record."""
    said: dict[str, Any] = {"id": id, "value": body.value, "item": body.item, "at": body.at}
    giver = _giver(caller)
    (result,) = services.outcomes.give([read_outcome(said, giver, services.clock.now())], giver.may)
    if isinstance(result, ModelyardError):
        raise result
    return JsonResponse(outcome_view(result), outcome_status(result))


@routes.post("/v1/outcomes", OutcomesAnswer)
@scope(Scope.PREDICT, also=Scope.ADMIN)
def give_outcomes(services: Wired, caller: Caller, body: Annotated[Any, Body()]) -> Response:
    """Many at once: a JSON array, or JSON Lines as `application/x-ndjson`, of `{"id", "value", "item"?, "at"?}`. Each
    is stored or refused on its own, `results` says which."""
    return JsonResponse(give_many(services.outcomes, body, _giver(caller), services.clock.now()))


def _giver(caller: Principal) -> Giver:
    """Who may speak of their own requests, administrators of all, each within the models of the key."""
    everyones = Scope.ADMIN in caller.scopes

    def may(target: Target) -> bool:
        return (everyones or target.client == caller.client) and caller.models.allows(target.endpoint)

    return Giver(caller.client, caller.key_id, may)


def _visible_record(services: Services, caller: Principal, id: str) -> dict[str, Any]:
    record = services.log.get(id)
    if not caller.models.allows(str(record["endpoint"])):
        raise NotFoundError("prediction_not_found", f"There is no prediction `{id[:80]}`.", field="id", got=id[:80])
    return record


def _visible(caller: Principal, wanted: RecordFilter) -> RecordFilter:
    """The filter, if this key may see all that it matches: a key bound to some models must name one of them."""
    if wanted.endpoint is not None:
        caller.require(Scope.AUDIT, wanted.endpoint)
    elif wanted.model is not None:
        caller.require(Scope.AUDIT, wanted.model)
    else:
        require_every_model(caller)
    return wanted
