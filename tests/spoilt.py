"""Real bytes with a few places spoilt: what is nearly right gets further into a reader than what is all wrong."""

from collections.abc import Sequence

from hypothesis import strategies as st

__all__ = ["spoilt"]


@st.composite
def spoilt(draw: st.DrawFn, originals: Sequence[bytes], pieces: Sequence[bytes]) -> bytes:
    """Take one of the originals, and in one to four places put, take away, repeat or move something.

    `pieces` are what the format is made of; pieces of the other originals are put in, too.
    """
    data = draw(st.sampled_from(originals))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 40)))
        other = draw(st.sampled_from(originals))
        at = draw(st.integers(0, len(other)))
        piece = draw(
            st.sampled_from(pieces)
            | st.binary(max_size=4)
            | st.just(data[start:end] * draw(st.integers(0, 3)))
            | st.just(other[at : at + draw(st.integers(0, 200))])
        )
        data = data[:start] + piece + data[end:]
    return data
