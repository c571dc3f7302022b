"""The GPU's part of labelling, in Triton: runs of foreground in packed rows, joined with those beside them.

A row of voxels is packed into words of 32 bits, its first voxel the lowest bit of the first. A run is a
stretch of foreground along x, over as many words as it needs; runs are numbered from 0 in the order of
their first voxels. ends[word] is how many runs have begun up to the end of a word: the run that holds a
bit is found by counting those that begin above it. Nothing but labeller.py loads this file, when it is
called: all else works without Triton.
"""

import triton
import triton.language as tl

# Triton compiles a version of a kernel for arguments that are 1, one for multiples of 16, one for others.
# The width's alone pays, in pack and paint: of rows that begin at multiples of 16 as many voxels are read at once.
_ONE_VERSION = ["words", "row_words", "height", "actives", "dz", "dy", "runs", "tolerance"]


@triton.jit
def _ones(word):
    """How many bits are set."""
    word = word - ((word >> 1) & 0x55555555)
    word = (word & 0x33333333) + ((word >> 2) & 0x33333333)
    word = (word + (word >> 4)) & 0x0F0F0F0F
    return ((word * 0x01010101) >> 24).to(tl.int32)


@triton.jit
def _without(word, other):
    """The bits of word that other has not."""
    return word & (other ^ 0xFFFFFFFF)


@triton.jit
def _above(bit):
    """The bits of a word above one bit."""
    return ((bit << 1) - 1) ^ 0xFFFFFFFF


@triton.jit
def _places():
    """The places of a word's bits, (1, 32)."""
    return tl.arange(0, 32)[None, :]


@triton.jit
def _packed(flags):
    """Words (n,) of flags (n, 32)."""
    return tl.sum(flags.to(tl.uint32) << _places().to(tl.uint32), axis=1)


@triton.jit
def _unpacked(word):
    """Flags (n, 32) of words (n,)."""
    return ((word[:, None] >> _places().to(tl.uint32)) & 1) != 0


@triton.jit
def _word(pointer, mask):
    return tl.load(pointer, mask=mask, other=0).to(tl.uint32, bitcast=True)


@triton.jit
def _alike(one, other, which, tolerance, floating: tl.constexpr):
    """Where the values at two pointers differ by tolerance at most, told in float32 or int32."""
    kind: tl.constexpr = tl.float32 if floating else tl.int32
    difference = tl.load(one, mask=which, other=0).to(kind) - tl.load(other, mask=which, other=0).to(kind)
    return which & (tl.abs(difference) <= tolerance)


@triton.jit(do_not_specialize=_ONE_VERSION)
def pack(
    mask, grey, tolerance, bits, starts, counts, words, row_words, width,
    graded: tl.constexpr, floating: tl.constexpr, size: tl.constexpr,
):  # fmt: skip
    """Find bits, starts (where runs begin) and counts (of starts) of size words for each program."""
    word = tl.program_id(0) * size + tl.arange(0, size)
    inside = (word >= 0) & (word < words)  # near 2^31 words the last ones wrap
    row = word // row_words
    first = (word - row * row_words) * 32
    x = first[:, None] + _places()
    voxel = (row * width)[:, None] + x
    full = tl.load(mask + voxel, mask=inside[:, None] & (x < width), other=0) != 0
    whole = _packed(full)
    if graded:
        before = tl.load(mask + voxel - 1, mask=full & (x > 0), other=0) != 0
        begins = _without(whole, _packed(_alike(grey + voxel, grey + voxel - 1, before, tolerance, floating)))
    else:
        carried = tl.load(mask + row * width + first - 1, mask=inside & (first > 0), other=0) != 0
        begins = _without(whole, (whole << 1) | carried.to(tl.uint32))
    tl.store(bits + word, whole.to(tl.int32, bitcast=True), mask=inside)
    tl.store(starts + word, begins.to(tl.int32, bitcast=True), mask=inside)
    tl.store(counts + word, _ones(begins), mask=inside)


@triton.jit(do_not_specialize=[*_ONE_VERSION, "width"])
def join(
    active, bits, starts, ends, grey, tolerance, parents, actives, row_words, height, width, dz, dy,
    dx: tl.constexpr, graded: tl.constexpr, floating: tl.constexpr, size: tl.constexpr,
):  # fmt: skip
    """Join the runs of size active words with the neighbours (dz, dy, dx) of their voxels, for each program.

    parents is a forest of runs in which no parent has a higher number than its child, so that a tree's
    root is its component's first run. To join u and v, whose parents are p > q: q becomes u's parent
    (atomically, if it is lower than what stands there), and unless u was a root, what it stood under is
    joined with q next. So each link that is replaced is owed by the program that replaced it, numbers
    only fall, and parents that others have changed meanwhile still are of the same component: the
    outcome does not hang on who comes first.
    """
    lane = tl.program_id(0) * size + tl.arange(0, size)
    inside = lane < actives
    word = tl.load(active + lane, mask=inside, other=0).to(tl.int32)
    row = word // row_words
    column = word - row * row_words
    y = row % height
    there = inside & (row // height + dz >= 0) & (y + dy >= 0) & (y + dy < height)
    beside = word + (dz * height + dy) * row_words

    ours = _word(bits + word, inside)
    our_starts = _word(starts + word, inside)
    our_end = tl.load(ends + word, mask=inside, other=0)
    theirs = _word(bits + beside, there)
    their_starts = _word(starts + beside, there)
    their_end = tl.load(ends + beside, mask=there, other=0)

    # The neighbours' bits are moved under ours. What stands in our place, and beside us under theirs,
    # joins the same runs without a slanting step; where values differ that is not known.
    if dx == 0:
        contacts = ours & theirs
    elif dx == 1:
        more = there & (column + 1 < row_words)
        next_starts = _word(starts + beside + 1, more)
        contacts = ours & ((theirs >> 1) | (_word(bits + beside + 1, more) << 31))
        if not graded:
            contacts = _without(contacts, theirs | (ours >> 1))
        their_starts = (their_starts >> 1) | (next_starts << 31)
        their_end += (next_starts & 1).to(tl.int32)
    else:
        more = there & (column > 0)
        contacts = ours & ((theirs << 1) | (_word(bits + beside - 1, more) >> 31))
        if not graded:
            contacts = _without(contacts, theirs | (ours << 1))
        their_end -= (their_starts >> 31).to(tl.int32)
        their_starts = (their_starts << 1) | (_word(starts + beside - 1, more) >> 31)
    if graded:
        here = grey + (row * width + column * 32)[:, None] + _places()
        step = (dz * height + dy) * width + dx
        contacts = _packed(_alike(here, here + step, _unpacked(contacts), tolerance, floating))
    # One contact for two runs is enough: go where either begins.
    contacts = _without(contacts, _without(contacts << 1, our_starts | their_starts))

    u = tl.zeros([size], dtype=tl.int32)
    v = tl.zeros([size], dtype=tl.int32)
    while tl.max(((contacts != 0) | (u != v)).to(tl.int32), axis=0) > 0:
        taken = (u == v) & (contacts != 0)
        rest = contacts & (contacts - 1)
        above = _above(contacts ^ rest)
        u = tl.where(taken, our_end - 1 - _ones(our_starts & above), u)
        v = tl.where(taken, their_end - 1 - _ones(their_starts & above), v)
        contacts = tl.where(taken, rest, contacts)
        going = u != v
        over_u = tl.load(parents + u, mask=going, other=0)
        over_v = tl.load(parents + v, mask=going, other=0)
        child = tl.where(over_u > over_v, u, v)
        low = tl.minimum(over_u, over_v)
        apart = going & (over_u != over_v)
        stood = tl.atomic_min(parents + child, low, mask=apart, sem="relaxed")
        u = tl.where(apart & (stood != child), stood, low)
        v = low


@triton.jit(do_not_specialize=_ONE_VERSION)
def name(parents, ranks, names, runs, size: tl.constexpr):
    """Name size runs for each program: by the rank of their root."""
    run = tl.program_id(0) * size + tl.arange(0, size)
    inside = run < runs
    over = tl.load(parents + run, mask=inside, other=0)
    while tl.max((inside & (over != run)).to(tl.int32), axis=0) > 0:
        run = tl.where(inside, over, run)
        over = tl.load(parents + run, mask=inside, other=0)
    tl.store(names + tl.program_id(0) * size + tl.arange(0, size), tl.load(ranks + run, mask=inside), mask=inside)


@triton.jit(do_not_specialize=_ONE_VERSION)
def paint(active, bits, starts, ends, names, labels, actives, row_words, width, size: tl.constexpr):
    """Write the labels of the voxels of size active words for each program; other words stay as they are."""
    lane = tl.program_id(0) * size + tl.arange(0, size)
    inside = lane < actives
    word = tl.load(active + lane, mask=inside, other=0).to(tl.int32)
    row = word // row_words
    x = ((word - row * row_words) * 32)[:, None] + _places()
    above = _above(tl.full([1, 32], 1, tl.uint32) << _places().to(tl.uint32))
    end = tl.load(ends + word, mask=inside, other=0)
    run = end[:, None] - 1 - _ones(_word(starts + word, inside)[:, None] & above)
    label = tl.load(names + run, mask=_unpacked(_word(bits + word, inside)), other=0)
    # Background is written too: whole lines are cheaper than parts of them.
    tl.store(labels + (row * width)[:, None] + x, label, mask=inside[:, None] & (x < width))
