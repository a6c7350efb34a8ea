"""Seeds made of two numbers, so that everything random has a seed of its own that follows from the user's."""

STRIDE = 1_000_003  # a prime: pairs of numbers below it never share a seed


def seed_of(number: int, block: int) -> int:
    """The seed number + 1,000,003 block: different for every pair with 0 <= number < 1,000,003.

    >>> seed_of(7, 42)  # step 7 of a training with seed 42
    42000133
    """
    return number + STRIDE * block
