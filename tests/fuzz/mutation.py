"""Inputs that are nearly right, and the place where those stay that broke something."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"


def mutated(seeds: tuple[bytes, ...], tokens: tuple[bytes, ...], chance: random.Random) -> bytes:
    """A seed with one to six bytes or pieces changed, cut out, doubled or put in."""
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.randint(1, 6)):
        at = chance.randint(0, len(data))
        match chance.randrange(5):
            case 0:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del data[at : at + chance.randint(1, 8)]
            case 2:
                data[at:at] = chance.choice(tokens)
            case 3:
                data[at : at + chance.randint(1, 8)] = chance.choice(tokens)
            case _:
                data[at:at] = data[at : at + chance.randint(1, 64)]
    return bytes(data)


def keep(name: str, data: bytes) -> Path:
    """Keeps an input of a target as a case of the tests."""
    place = CORPUS / name / hashlib.sha256(data).hexdigest()[:16]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    return place
