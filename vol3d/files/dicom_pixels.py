"""The stored values of a DICOM slice.

Compressed ones are decoded by imagecodecs. GDCM, which pydicom would take, ends the whole process on
some damaged files.
"""

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
    ybr = frame.photometric.startswith("YBR_FULL")
    options = {}
    if _DECODERS[kind] == _JPEG and frame.samples > 1:  # else it would be guessed from the stream
        options = {"colorspace": "ycbcr" if ybr else "rgb", "outcolorspace": "rgb"}
    values: NDArray[Any] = getattr(imagecodecs, _DECODERS[kind])(data, **options)
    if ybr and _DECODERS[kind] != _JPEG:
        values = convert_color_space(values, "YBR_FULL", "RGB")
    return values.astype(f"{'i' if frame.signed else 'u'}{frame.bits_allocated // 8}", copy=False)
