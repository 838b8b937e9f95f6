"""`/card/RUN.png`: the share card of a run, for everybody who may look at it. 404 with a sentence otherwise."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from iekd.errors import UserError
from iekd.runs.card import card_of, png_of
from iekd.runs.siblings import family_of
from iekd.runs.store import Store

ADDRESS = "/card"


def card_route(store: Store) -> Route:
    """The route that answers with a run's share card as a PNG file."""

    def answer(request: Request) -> Response:
        try:
            run = store.get(request.path_params["run"])
            content = png_of(card_of(run, family_of(store, run).report))
        except UserError as error:
            return PlainTextResponse(f"{error}\n", 404)
        headers = {"content-disposition": f'attachment; filename="{run.id}-card.png"', "cache-control": "no-cache"}
        return Response(content, media_type="image/png", headers=headers)

    return Route(ADDRESS + "/{run}.png", answer)
