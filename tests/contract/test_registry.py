"""The promises of models.ports.Registry."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from modelyard.core.errors import ConflictError, NotFoundError
from modelyard.core.settings import Settings
from modelyard.routing.ports import Endpoint
from modelyard.storage.sql.open import open_stores
from modelyard.storage.stores import Stores
from modelyard.testing import signature, version


def test_a_version_comes_back_as_it_was_added(stores: Stores) -> None:
    """Every field of version and manifest survives, and the digest still names the manifest."""
    given = version(
        signature=signature(("größe", "b"), labels=("no", "yes")),
        example={"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [0.1, 1e-7]}]},
        metrics={"accuracy": 0.95},
        provenance={"producer": "test"},
        redaction=("größe",),
    )
    assert stores.registry.add_version(given)
    found = stores.registry.version("tree", "1")
    assert found == given
    assert found.manifest.digest() == found.digest
    assert stores.registry.manifest(given.digest) == given.manifest


def test_the_first_version_makes_the_endpoint(stores: Stores) -> None:
    """A model's first version gets an endpoint of the model's name with all traffic; later ones get none."""
    stores.registry.add_version(version("tree", "1"))
    assert stores.endpoints.endpoint("tree") == Endpoint("tree", "tree", (("1", 100),), 1)
    stores.registry.add_version(version("tree", "2", b"other"))
    assert stores.endpoints.endpoints() == (Endpoint("tree", "tree", (("1", 100),), 1),)


def test_the_same_content_again_is_no_change(stores: Stores) -> None:
    """The same bytes under the same version give False and move nothing, even with other words around them."""
    first = version(metrics={"accuracy": 0.9})
    assert stores.registry.add_version(first)
    before = stores.keys.version()
    assert not stores.registry.add_version(first)
    assert not stores.registry.add_version(version(metrics={"accuracy": 0.8}))
    assert stores.registry.version("tree", "1") == first
    assert stores.keys.version() == before


def test_other_content_under_the_same_version_is_refused(stores: Stores) -> None:
    """Versions are immutable: version_exists, nothing changed."""
    first = version()
    stores.registry.add_version(first)
    before = stores.keys.version()
    with pytest.raises(ConflictError) as caught:
        stores.registry.add_version(version(content=b"other"))
    assert (caught.value.code, caught.value.detail["got"]) == ("version_exists", "1")
    assert stores.registry.versions() == (first,)
    assert stores.keys.version() == before


def test_the_same_content_may_be_two_versions(stores: Stores) -> None:
    """Content-addressed: two versions, two models, one manifest."""
    names = [("tree", "1"), ("tree", "2"), ("bush", "1")]
    assert all(stores.registry.add_version(version(model, name)) for model, name in names)
    assert len({found.digest for found in stores.registry.versions()}) == 1


def test_versions_are_in_the_order_of_publication(stores: Stores) -> None:
    """Oldest first by publication, whatever the clocks said."""
    for number, (model, name) in enumerate([("b", "10"), ("a", "1"), ("b", "9"), ("b", "x")]):
        stores.registry.add_version(version(model, name, bytes([number]), created_at=1000.0 - number))
    assert [(found.model, found.version) for found in stores.registry.versions()] == [
        ("b", "10"),
        ("a", "1"),
        ("b", "9"),
        ("b", "x"),
    ]
    assert [found.version for found in stores.registry.versions("b")] == ["10", "9", "x"]


def test_what_is_not_there_is_said_by_name(stores: Stores) -> None:
    """Unknown model and unknown version are two different refusals; an empty registry lists nothing."""
    assert stores.registry.versions() == ()
    assert stores.registry.manifest("0" * 64) is None
    stores.registry.add_version(version())
    for ask, code in (
        (lambda: stores.registry.versions("bush"), "model_not_found"),
        (lambda: stores.registry.version("bush", "1"), "model_not_found"),
        (lambda: stores.registry.version("tree", "2"), "version_not_found"),
    ):
        with pytest.raises(NotFoundError) as caught:
            ask()
        assert caught.value.code == code


def test_adding_bumps_the_version_once(stores: Stores) -> None:
    """One publication, one change, endpoint included."""
    before = stores.keys.version()
    stores.registry.add_version(version())
    assert stores.keys.version() == before + 1


def test_the_sink_finds_the_signature_by_manifest(stores: Stores) -> None:
    """The drain decodes with the signature of the manifest that the record names; None for an unknown one."""
    given = version()
    stores.registry.add_version(given)
    assert stores.sink.signature(given.digest) == given.manifest.signature
    assert stores.sink.signature("0" * 64) is None


def _add(stores: Stores, number: int) -> str:
    return _outcome(stores, version("tree", "1", bytes([number])))


def _add_same(stores: Stores, _number: int) -> str:
    return _outcome(stores, version("tree", "1"))


def _outcome(stores: Stores, given: Any) -> str:
    try:
        return str(stores.registry.add_version(given))
    except ConflictError as error:
        return error.code


def test_threads_adding_one_version_get_one_winner(stores: Stores) -> None:
    """Eight threads with different content: one True, seven refusals."""
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: _add(stores, number), range(8)))
    assert sorted(answers) == ["True"] + ["version_exists"] * 7
    assert len(stores.registry.versions()) == 1


@pytest.mark.parametrize(("work", "others"), [(_add, "version_exists"), (_add_same, "False")])
def test_two_processes_adding_one_version(
    processes: Callable[..., list[Any]], data: Path, work: Callable[[Stores, int], str], others: str
) -> None:
    """Two processes at once: one adds it, the other learns that it is there, same or different."""
    assert sorted(processes(2, work)) == sorted(["True", others])
    stores = open_stores(Settings(), data)
    assert len(stores.registry.versions()) == 1
    assert stores.keys.version() == 1
    assert stores.endpoints.endpoint("tree").weights == (("1", 100),)
    stores.close()


def test_an_interrupted_publication_leaves_nothing(sweep: Callable[..., int]) -> None:
    """Version, manifest, endpoint and snapshot version come together or not at all."""
    given = version()

    def view(stores: Stores) -> Any:
        known = stores.registry.manifest(given.digest)
        return stores.registry.versions(), known, stores.endpoints.endpoints(), stores.keys.version()

    assert sweep(lambda stores: stores.registry.add_version(given), view) >= 5
