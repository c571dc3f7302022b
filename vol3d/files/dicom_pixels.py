"""The stored values of a DICOM slice.

Compressed ones are decoded by imagecodecs. GDCM, which pydicom would take, ends the whole process on
some damaged files.
"""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.errors import InputError
from vol3d.files.dicom_grid import Frame
from vol3d.files.dicom_headers import DEFLATED, reading

_JPEG, _JPEG_LS, _JPEG_2000, _HTJ2K = "jpeg8_decode", "jpegls_decode", "jpeg2k_decode", "htj2k_decode"
_DECODERS = {  # by the end of the transfer syntax
    **dict.fromkeys(("50", "51", "57", "70"), _JPEG),
    **dict.fromkeys(("80", "81"), _JPEG_LS),
    **dict.fromkeys(("90", "91"), _JPEG_2000),
    **dict.fromkeys(("201", "202", "203"), _HTJ2K),
}
_COMPRESSED = "1.2.840.10008.1.2.4."
_RLE = "1.2.840.10008.1.2.5"
_START_OF_FRAME = {0xFFC0, 0xFFC1, 0xFFC2, 0xFFC3, 0xFFF7}  # JPEG's, lossless JPEG's, JPEG-LS's


def stored_range(frame: Frame) -> tuple[int, int]:
    """The least and the largest value that a slice can store."""
    return (-(1 << frame.bits_stored - 1) if frame.signed else 0), (1 << frame.bits_stored - frame.signed) - 1


def stored_values(frame: Frame) -> NDArray[Any]:
    """The values of a slice as they are stored, (samples, Y, X): RGB for colours; bits that are no value's are dropped.

    Raises:
        InputError: they cannot be decoded.
    """
    with reading(frame.file) as pydicom:
        if frame.syntax.startswith(_COMPRESSED):
            values = _decompressed(frame)
        elif frame.syntax == DEFLATED:
            values = pydicom.pixels.pixel_array(pydicom.dcmread(frame.file), index=frame.number)
        else:
            plugin = "pydicom" if frame.syntax == _RLE else ""
            values = pydicom.pixels.pixel_array(
                frame.file, index=frame.number, transfer_syntax_uid=frame.syntax, decoding_plugin=plugin
            )
    shape = (frame.rows, frame.columns, frame.samples) if frame.samples > 1 else (frame.rows, frame.columns)
    if values.shape != shape:
        raise InputError(f"{frame.file}: expected pixels {shape}, got {values.shape}")
    image: NDArray[Any] = np.moveaxis(values, -1, 0) if frame.samples > 1 else values[None]
    spare = image.dtype.itemsize * 8 - frame.bits_stored
    return image << spare >> spare if spare > 0 else image


def _decompressed(frame: Frame) -> NDArray[Any]:
    """A frame of JPEG's family in the type of its stored values, (Y, X) or (Y, X, samples)."""
    import imagecodecs
    from pydicom.encaps import get_frame
    from pydicom.pixels import convert_color_space
    from pydicom.uid import UID

    kind = frame.syntax.removeprefix(_COMPRESSED)
    if kind not in _DECODERS:
        raise InputError(f"{frame.file}: its pixels are compressed as {UID(frame.syntax).name}, unread here")
    with frame.file.open("rb") as stream:
        stream.seek(frame.pixels_at)
        data = get_frame(stream, frame.number, number_of_frames=frame.frames)
    if (size := _size_in(data)) not in (None, (frame.rows, frame.columns)):  # it could be huge, and slow to refuse
        raise InputError(f"{frame.file} is damaged: expected {frame.rows} x {frame.columns} pixels, encoded are {size}")
    ybr = frame.photometric.startswith("YBR_FULL")
    options = {}
    if _DECODERS[kind] == _JPEG and frame.samples > 1:  # else it would be guessed from the stream
        options = {"colorspace": "ycbcr" if ybr else "rgb", "outcolorspace": "rgb"}
    values: NDArray[Any] = getattr(imagecodecs, _DECODERS[kind])(data, **options)
    if ybr and _DECODERS[kind] != _JPEG:
        values = convert_color_space(values, "YBR_FULL", "RGB")
    return values.astype(f"{'i' if frame.signed else 'u'}{frame.bits_allocated // 8}", copy=False)


def _size_in(data: bytes) -> tuple[int, int] | None:
    """Rows and columns that a compressed stream says of itself; None where it has another beginning."""
    if data[:4] == b"\xff\x4f\xff\x51":  # JPEG 2000: the corners of the image on its grid
        right, bottom, left, top = struct.unpack_from(">4I", data, 8)
        return bottom - top, right - left
    position = 2
    while data[:2] == b"\xff\xd8" and position < len(data):
        marker, length = struct.unpack_from(">HH", data, position)
        if marker in _START_OF_FRAME:
            rows, columns = struct.unpack_from(">HH", data, position + 5)
            return rows, columns
        position += 2 + length
    return None
