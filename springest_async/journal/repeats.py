"""Find digests that come again among millions, in memory that does not grow."""

import mmap

_BITS = 2**27  # 16 MiB, of which the system provides what is used


class SeenDigests:
    """A Bloom filter (https://en.wikipedia.org/wiki/Bloom_filter) of two bits for each digest.

    After a million digests it is wrong about one new digest in 4 500, after ten million about one in 50.
    """

    def __init__(self) -> None:
        self._bits = mmap.mmap(-1, _BITS // 8)

    def add(self, digest: bytes) -> bool:
        """Add a digest of 16 bytes, and return whether it may have been added before; False is always right."""
        bits = self._bits
        number = int.from_bytes(digest, "big")
        first, second = number % _BITS, (number >> 64) % _BITS
        index, bit = first >> 3, 1 << (first & 7)
        known = bits[index] & bit
        bits[index] |= bit
        index, bit = second >> 3, 1 << (second & 7)
        known = known and bits[index] & bit
        bits[index] |= bit
        return bool(known)

    def __contains__(self, digest: bytes) -> bool:
        """Return whether a digest of 16 bytes may have been added; False is always right."""
        number = int.from_bytes(digest, "big")
        places = (number % _BITS, (number >> 64) % _BITS)
        return all(self._bits[place >> 3] & 1 << (place & 7) for place in places)
