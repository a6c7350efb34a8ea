"""Seeds and numbers for everything random, so that each thing has one of its own that follows from the user's seed."""

import hashlib

RANDOM_NUMBERS = "by text and candidate"  # of what they are made; written beside work that can be continued
STRIDE = 1_000_003  # a prime: pairs of numbers below it never share a seed


def seed_of(number: int, block: int) -> int:
    """The seed number + 1,000,003 block: different for every pair with 0 <= number < 1,000,003.

    >>> seed_of(7, 42)  # step 7 of a training with seed 42
    42000133
    """
    return number + STRIDE * block


def number_of(*what) -> int:
    """A number of 64 bits made of what something is (plain values): the same on every machine, another for anything
    else.

    >>> number_of("Hello", 0) == number_of("Hello", 0) != number_of("Hello", 1)
    True
    """
    return int.from_bytes(hashlib.blake2b(repr(what).encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def occurrences(items) -> list[int]:
    """How many equal items stand before each one.

    >>> occurrences(["a", "b", "a"])
    [0, 0, 1]
    """
    seen: dict = {}
    numbers = []
    for item in items:
        numbers.append(seen.get(item, 0))
        seen[item] = numbers[-1] + 1
    return numbers
