"""Randomness that can be repeated: a case is its target, its seed and its number, no more."""

import random
from collections.abc import Sequence
from typing import Final

_WORDS: Final = (
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\x0f",
    b"\0\0\0\x80",
    b"-1",
    b"9" * 40,
    b"1e999",
    b"NaN",
    b"null",
    b'"\\u0000"',
    b"[" * 200,
    b"{}",
    b"/",
    b"+",
    b"#",
    b"$share/",
    b"{part_id}",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    "\u202e".encode(),
)
"""What parsers stumble over: limits, signs, depth, separators, text that is none."""


def of_case(target: str, seed: int, case: int) -> random.Random:
    """The source of randomness of one case; the same for the same three on every machine."""
    return random.Random(f"{target}/{seed}/{case}")


def mutate(good: bytes, noise: random.Random, start: int = 0) -> bytes:
    """Change, insert, remove or repeat bytes of something valid, from `start` on; 1 to 8 times."""
    bad = bytearray(good)
    for _ in range(1 << noise.randrange(4)):
        place = noise.randint(min(start, len(bad)), len(bad))
        act = noise.randrange(7)
        if act == 0 and place < len(bad):
            bad[place] ^= 1 << noise.randrange(8)
        elif act == 1 and place < len(bad):
            bad[place] = noise.choice((0, 1, 0x7F, 0x80, 0xFF, noise.randrange(256)))
        elif act == 2:
            bad[place:place] = noise.choice(_WORDS)
        elif act == 3:
            del bad[place : place + noise.randint(1, 16)]
        elif act == 4:
            end = place + noise.randint(1, 64)
            bad[place:place] = bad[place:end] * noise.randint(1, 4)
        elif act == 5:
            word = noise.choice(_WORDS)
            bad[place : place + len(word)] = word
        else:
            del bad[place:]
    return bytes(bad)


def mutant(seeds: Sequence[bytes], noise: random.Random, start: int = 0) -> bytes:
    """A mutant of one of the seeds; now and then the beginning of one and the end of another."""
    good = noise.choice(seeds)
    if len(seeds) > 1 and noise.random() < 0.1:
        other = noise.choice(seeds)
        good = good[: noise.randint(0, len(good))] + other[noise.randint(0, len(other)) :]
    return mutate(good, noise, start)
