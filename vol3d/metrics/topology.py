"""Whether two masks hang together alike."""

from vol3d.metrics.masks import AnyMask, two_arrays
from vol3d.metrics.surface import cube_pairs
from vol3d.regions.topology import Betti, betti_numbers, euler_number


def betti_errors(prediction: AnyMask, reference: AnyMask) -> Betti:
    """By how many components, tunnels and cavities two (Z, Y, X) masks differ: |prediction - reference| of each.

    Foreground hangs together by 26 neighbours, background by 6. Counts, not places: as many tunnels elsewhere are no
    error. An empty mask has none of each.

    Raises:
        ValueError: the masks are not three-dimensional bool arrays of one shape.
    """
    one, other = two_arrays(prediction, reference)
    counts = cube_pairs(one, other)
    ours = betti_numbers(one, euler=euler_number(counts.sum(axis=1)))
    theirs = betti_numbers(other, euler=euler_number(counts.sum(axis=0)))
    return Betti(*(abs(a - b) for a, b in zip(ours, theirs, strict=True)))
