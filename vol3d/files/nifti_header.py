"""What a NIfTI header says, read through nibabel, with the checks that nibabel leaves out.

nibabel loads zero and NaN spacings, zero dimensions and NaN affines without a word.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.errors import InputError
from vol3d.files.place import MM_LIMITS, check_place, rescaled, sheared, spacing_only, upright
from vol3d.files.voxels import check_type
from vol3d.geometry.affine import Affine, agree, from_spacing
from vol3d.shapes import Shape3, Spacing
from vol3d.volume.source import Says

_MM_PER_UNIT = {1: 1e3, 3: 1e-3}  # metres and micrometres; anything else is taken as millimetres
REVERSED = [2, 1, 0, 3]  # columns x, y, z, origin to z, y, x, origin and back


def parse(path: Path, start: bytes) -> Any:
    """The nibabel header in the first bytes of a file.

    Raises:
        InputError: they are no single-file NIfTI.
    """
    import nibabel

    for kind, magic in ((nibabel.Nifti1Header, b"n+1"), (nibabel.Nifti2Header, b"n+2")):
        size = kind.sizeof_hdr
        if start[:4] in (size.to_bytes(4, "little"), size.to_bytes(4, "big")) and len(start) >= size:
            header = kind(start[:size], check=False)
            if not bytes(header["magic"]).startswith(magic):
                raise InputError(f"{path} is an Analyze or a two-file NIfTI; convert it to a single .nii file")
            return header
    raise InputError(  # NIfTI is tried when no other format was recognised
        f"{path} is of no format that is read here, or damaged at its beginning: {start[:16]!r}"
    )


def stored_type(path: Path, header: Any) -> tuple[np.dtype[Any], int]:
    """The type of a sample in the file, and samples per voxel."""
    try:
        dtype = header.get_data_dtype()
    except KeyError as error:
        raise InputError(f"{path}: there is no NIfTI data type {error}") from error
    if dtype.names is not None:
        return np.dtype(np.uint8), len(dtype.names)
    check_type(path, dtype)
    return dtype, 1


def dims_of(path: Path, header: Any) -> tuple[int, int, int, int]:
    """(C, Z, Y, X) in the file; trailing axes of length 1 are dropped, missing ones added."""
    count = int(header["dim"][0])
    dims = [int(n) for n in header["dim"][1 : count + 1]] if 1 <= count <= 7 else []
    if not dims or min(dims) < 1:
        raise InputError(f"{path}: expected 1 to 7 positive dimensions (x, y, z, ...), got dim = {list(header['dim'])}")
    while len(dims) > 3 and dims[-1] == 1:
        dims.pop()
    if len(dims) == 5 and dims[3] == 1:  # NIfTI's own place for vectors
        del dims[3]
    if len(dims) > 4:
        raise InputError(f"{path}: expected a volume or channels of one, got {len(dims)} dimensions (x, y, ...) {dims}")
    x, y, z, c = dims + [1] * (4 - len(dims))
    return c, z, y, x


def place_of(path: Path, header: Any, shape: Shape3, spacing: Spacing | None) -> tuple[Affine, Says, tuple[str, ...]]:
    """Index (z, y, x) to RAS+ millimetres, what of it the file says, and what is odd about that.

    A given spacing (mm) goes before the header's, and stands alone where the header has no place to offer.

    Raises:
        InputError: no spacing is given, and the header's or its affine is zero, NaN, negative or absurd.
    """
    try:
        if spacing is None:
            _check_pixdim(path, header)
        stored = _affine_of(path, header)
        affine = stored if spacing is None else rescaled(stored, spacing)
        check_place(path, affine)
    except InputError as error:
        if spacing is None:
            raise InputError(f"{error}; give the right spacing with --spacing or in cases.csv") from error
        return from_spacing(spacing), "spacing", (spacing_only(path),)
    return affine, "place", _oddities(path, header, stored, shape)


def _affine_of(path: Path, header: Any) -> Affine:
    affine = _stored_affine(path, header)[:, REVERSED]
    affine[:3] *= _mm_per_unit(header)
    if header["dim"][0] < 3 and not affine[:3, 0].any():  # a flat image has no third axis to speak of
        affine[:3, 0] = upright(affine)
    return affine


def _check_pixdim(path: Path, header: Any) -> None:
    used = min(3, int(header["dim"][0]))
    pixdim = [float(v) for v in header["pixdim"][1 : used + 1]]
    low, high = MM_LIMITS
    unit = _mm_per_unit(header)
    if not all(np.isfinite(v) and low <= v * unit <= high for v in pixdim):
        raise InputError(f"{path}: expected a spacing (x, y, z) within [{low}, {high}] mm, got pixdim = {pixdim}")


def _stored_affine(path: Path, header: Any) -> NDArray[np.float64]:
    """The sform, else the qform, else the bare spacing, as nibabel chooses; columns x, y, z."""
    from nibabel.spatialimages import HeaderDataError

    if header["sform_code"] > 0:
        return np.array(header.get_sform(), dtype=np.float64)
    try:
        return np.array(header.get_qform() if header["qform_code"] > 0 else header.get_base_affine(), dtype=np.float64)
    except (ValueError, HeaderDataError) as error:
        raise InputError(f"{path}: its qform cannot be read ({error})") from error


def _oddities(path: Path, header: Any, affine: Affine, shape: Shape3) -> tuple[str, ...]:
    """Sentences about an affine that can be used but deserves a look."""
    from nibabel.spatialimages import HeaderDataError

    found = []
    if header["sform_code"] <= 0 and header["qform_code"] <= 0:
        found.append(f"{path}: neither sform nor qform is set; the place is made up from the spacing")
    if header["sform_code"] > 0 and header["qform_code"] > 0:
        try:
            other = np.asarray(header.get_qform())[:, REVERSED]
            other[:3] *= _mm_per_unit(header)
            same = agree(affine, other, shape, tolerance_voxels=1e-2)
        except (ValueError, HeaderDataError):
            same = False
        if not same:
            found.append(f"{path}: sform and qform disagree; the sform is used")
    return (*found, *sheared(path, affine))


def scale_of(path: Path, header: Any) -> tuple[float, float]:
    """The slope and the intercept of the intensities; (1, 0) where they are not scaled.

    Raises:
        InputError: they are infinite.
    """
    from nibabel.spatialimages import HeaderDataError

    try:
        if np.isinf(header["scl_slope"]):
            raise HeaderDataError("scl_slope is infinite")
        slope, inter = header.get_slope_inter()
    except HeaderDataError as error:
        raise InputError(f"{path}: its intensity scale is not finite ({error})") from error
    return (1.0, 0.0) if slope is None else (float(slope), float(inter or 0.0))


def offset_of(path: Path, header: Any) -> int:
    """The byte at which the voxels begin.

    Raises:
        InputError: it lies inside the header, or is no whole number.
    """
    offset = float(header["vox_offset"])
    if offset == 0:
        return int(header.sizeof_hdr) + 4
    if not (np.isfinite(offset) and offset.is_integer() and offset >= header.sizeof_hdr):
        raise InputError(f"{path}: voxels cannot begin at byte {offset} (vox_offset) of a NIfTI file")
    return int(offset)


def _mm_per_unit(header: Any) -> float:
    return _MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
