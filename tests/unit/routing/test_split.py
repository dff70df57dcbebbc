"""Which arm: vectors that every implementation must reproduce, fair shares, and small moves (P12)."""

from __future__ import annotations

import pytest

from modelyard.routing.split import assign, bucket

SUBJECTS = [f"subject-{n}" for n in range(100_000)]
# BLAKE2b, 8 bytes, of `salt NUL subject`, big-endian, over 2^64.
VECTORS = [
    ("tree", "subject-1", 0x6D58AB2A2016CA61),
    ("tree", "00000000000000ab0000000001", 0x7F55ABF0657ECB91),
    ("cancer", "", 0x860385FADC1791FF),
    ("zähler", "Ünïcode ✓", 0x895259318FDF5149),
]
CRITICAL_3_SIGMA = 9.0
"""Chi-square with one degree of freedom beyond which a fair split falls once in 370 seeds; this one is fixed."""


@pytest.mark.parametrize(("salt", "subject", "digest"), VECTORS)
def test_vectors(salt: str, subject: str, digest: int) -> None:
    """The same number in every process, language and year."""
    assert bucket(salt, subject) == digest / 2**64


@pytest.mark.parametrize("weights", [(("1", 50), ("2", 50)), (("1", 90), ("2", 10))])
def test_shares_are_kept(weights: tuple[tuple[str, int], ...]) -> None:
    """10^5 subjects fall on the arms as the weights say (chi-square)."""
    counts = [0] * len(weights)
    for subject in SUBJECTS:
        counts[assign("tree", subject, weights)] += 1
    expected = [share * len(SUBJECTS) / 100 for _, share in weights]
    chi_square = sum((got - want) ** 2 / want for got, want in zip(counts, expected, strict=True))
    assert chi_square < CRITICAL_3_SIGMA, counts


def test_a_change_of_weights_moves_only_the_needed_share() -> None:
    """From 90/10 to 80/20 a tenth of the subjects moves, all of them to the arm that grew; the rest stay."""
    before, after = (("1", 90), ("2", 10)), (("1", 80), ("2", 20))
    moves = [
        (old, new)
        for subject in SUBJECTS
        if (old := assign("tree", subject, before)) != (new := assign("tree", subject, after))
    ]
    assert set(moves) == {(0, 1)}
    assert len(moves) == pytest.approx(len(SUBJECTS) / 10, rel=0.05)


def test_salts_split_independently() -> None:
    """Who falls on which arm of one endpoint says nothing about another's."""
    weights = (("1", 50), ("2", 50))
    same = sum(assign("tree", subject, weights) == assign("bush", subject, weights) for subject in SUBJECTS)
    assert same == pytest.approx(len(SUBJECTS) / 2, rel=0.02)


def test_an_arm_without_weight_is_never_chosen() -> None:
    """Weight 0 takes nobody, wherever it stands; the arms keep their positions."""
    weights = (("0", 0), ("1", 50), ("2", 0), ("3", 50), ("4", 0))
    assert {assign("tree", subject, weights) for subject in SUBJECTS[:10_000]} == {1, 3}
