"""The page of figures is what `make infra-proof` writes from the figures and the sources."""

from __future__ import annotations

from infraproof.results import KEPT, Results
from proof_page import PAGE, page

#: Written before any test of this session adds a figure: the long form keeps its own while it runs.
EXPECTED = page(Results(KEPT))


def test_the_page_is_written_from_the_figures() -> None:
    """docs/infra-proof.md is up to date: no figure in it was written by hand, none is missing."""
    assert PAGE.read_text() == EXPECTED, "run `make infra-proof`"
