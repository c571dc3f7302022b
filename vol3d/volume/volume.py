"""A whole volume in memory, and its ways from and to nibabel, SimpleITK and MONAI.

What comes in is told by what it can do, never by its type; a package is imported only where one of its
objects is asked for.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.geometry.affine import from_spacing, is_orthogonal, spacing_of
from vol3d.shapes import Spacing, positive_spacing
from vol3d.volume.source import ArraySource

REVERSED = [2, 1, 0, 3]  # columns x, y, z, origin to z, y, x, origin and back
_LPS = np.array([[-1.0], [-1.0], [1.0], [1.0]])  # rows that turn LPS+ points into RAS+ ones and back
_MM_PER_UNIT = {"meter": 1e3, "micron": 1e-3}
_STORED_AS = {"bool": np.uint8, "float16": np.float32}  # types that the other formats lack
_NIFTI1_LIMIT = np.iinfo(np.int16).max


@dataclass(frozen=True, eq=False, repr=False)
class Volume(ArraySource):
    """Voxels and their place: a VolumeSource that is in memory.

    array is (C, Z, Y, X), of integers, bools or floats of at most 64 bits; a (Z, Y, X) one becomes one channel.
    affine (4, 4) maps an index (z, y, x, 1) to a point (x, y, z, 1) in mm, RAS+. The other fields are those of
    VolumeSource: says is "nothing" where the affine is made up, header what the file beside the voxels kept.
    Nothing is copied.

    Raises:
        ValueError: no such array, or the affine is no place in space.
    """

    def __post_init__(self) -> None:
        array, affine = np.asarray(self.array), np.asarray(self.affine, dtype=np.float64)
        if array.ndim not in (3, 4) or 0 in array.shape or array.dtype.kind not in "biuf" or array.itemsize > 8:
            raise ValueError(
                f"expected a (Z, Y, X) or (C, Z, Y, X) array of numbers, got {array.dtype} of shape {array.shape}"
            )
        place = affine.shape == (4, 4) and np.isfinite(affine).all() and np.linalg.det(affine[:3, :3])
        if not place or tuple(affine[3]) != (0, 0, 0, 1):
            raise ValueError(f"expected an affine (4, 4) from index (z, y, x, 1) to RAS+ mm, got {affine.tolist()}")
        object.__setattr__(self, "array", array if array.ndim == 4 else array[None])
        object.__setattr__(self, "affine", affine)

    def __repr__(self) -> str:
        spacing = ", ".join(f"{step:.4g}" for step in self.spacing)
        return f"Volume({self.array.dtype} {self.array.shape}, spacing ({spacing}) mm)"

    @classmethod
    def from_array(
        cls, array: NDArray[Any], *, spacing: Spacing | tuple[float, float, float] | None = None
    ) -> "Volume":
        """A (Z, Y, X) or (C, Z, Y, X) array at the origin; without a spacing (z, y, x in mm) it says nothing.

        Raises:
            ValueError: no such array, or the spacing is not positive.
        """
        affine = from_spacing(positive_spacing((1.0, 1.0, 1.0) if spacing is None else spacing))
        return cls(np.asarray(array), affine, says="nothing" if spacing is None else "spacing")

    @property
    def spacing(self) -> Spacing:
        """Millimetres between voxel centres along z, y, x."""
        return spacing_of(self.affine)

    @classmethod
    def from_nibabel(cls, image: Any) -> "Volume":
        """A nibabel image: its scaled values (float32 where they are scaled) and its affine in mm.

        Raises:
            ValueError: it has more axes than (x, y, z, c) or NIfTI's (x, y, z, 1, c), or no affine.
        """
        if image.affine is None:
            raise ValueError(f"expected an image with an affine, got a {type(image).__name__} without: give it one")
        values = np.asanyarray(image.dataobj)
        if values.dtype.names:  # RGB
            values = np.stack([values[name] for name in values.dtype.names], axis=-1)
        elif values.dtype.kind == "f" and image.get_data_dtype().kind != "f":
            values = values.astype(np.float32)
        if values.size != np.prod(values.shape[:3]) * max(values.shape[3:], default=1):
            raise ValueError(f"expected an image (x, y, z) or (x, y, z, c), got the shape {values.shape}")
        voxels = values.T.reshape(-1, *values.shape[2::-1]) if values.ndim > 3 else values.T
        voxels = voxels.reshape(*(1,) * (3 - voxels.ndim), *voxels.shape)
        units = getattr(image.header, "get_xyzt_units", lambda: ("mm",))()
        affine = np.array(image.affine, dtype=np.float64)[:, REVERSED]
        affine[:3] *= _MM_PER_UNIT.get(units[0], 1.0)
        return cls(voxels, affine)

    def to_nibabel(self) -> Any:
        """A nibabel.Nifti1Image (Nifti2Image where an axis is too long), axes (x, y, z) or (x, y, z, c), in mm."""
        import nibabel

        values = self._as_stored()
        values = (values if len(values) > 1 else values[0]).T
        kind = nibabel.Nifti2Image if max(values.shape) > _NIFTI1_LIMIT else nibabel.Nifti1Image
        image = kind(values, self.affine[:, REVERSED], dtype=values.dtype)
        image.header.set_xyzt_units("mm", "sec")
        return image

    @classmethod
    def from_sitk(cls, image: Any) -> "Volume":
        """A SimpleITK image or label map of two or three dimensions; its voxels' components are the channels.

        Raises:
            ValueError: it has four dimensions.
        """
        import SimpleITK

        if "label" in image.GetPixelIDTypeAsString():  # asked for its array, it would end the process
            image = SimpleITK.LabelMapToLabel(image)
        if image.GetDimension() == 2:
            image = SimpleITK.JoinSeries(image)
        if image.GetDimension() != 3:
            raise ValueError(f"expected a SimpleITK image of 2 or 3 dimensions, got {image.GetDimension()}")
        values = SimpleITK.GetArrayFromImage(image)
        affine = np.eye(4)
        affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
        affine[:3, 3] = image.GetOrigin()
        voxels = np.ascontiguousarray(np.moveaxis(values, -1, 0)) if values.ndim == 4 else values
        return cls(voxels, (_LPS * affine)[:, REVERSED])

    def to_sitk(self) -> Any:
        """A SimpleITK.Image; several channels become the components of its voxels.

        Raises:
            ValueError: the grid is sheared, which SimpleITK cannot say.
        """
        import SimpleITK

        if not is_orthogonal(self.affine):
            raise ValueError("the grid is sheared, which SimpleITK cannot say: resample it to a right-angled one")
        values, several = self._as_stored(), self.channels > 1
        image = SimpleITK.GetImageFromArray(np.moveaxis(values, 0, -1) if several else values[0], isVector=several)
        affine, spacing = (_LPS * self.affine)[:, REVERSED], self.spacing[::-1]
        image.SetSpacing(spacing)
        image.SetOrigin(affine[:3, 3].tolist())
        image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
        return image

    @classmethod
    def from_monai(cls, image: Any, *, affine: NDArray[np.float64] | None = None) -> "Volume":
        """A MONAI MetaTensor, channel first: image is (C, X, Y, Z), or (X, Y, Z) for one channel.

        affine (4, 4), from index (x, y, z, 1) to RAS+ mm, stands in for one that the tensor does not carry,
        such as that of an image_meta_dict.

        Raises:
            ValueError: there is no affine, or the image has other axes.
        """
        if affine is None and not hasattr(image, "affine"):
            raise ValueError(f"expected a MetaTensor, got a {type(image).__name__}: give affine=")
        world = np.asarray(image.affine if affine is None else affine, dtype=np.float64)
        if affine is None and image.meta.get("space") == "LPS":
            world = _LPS * world
        values = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image)
        if values.ndim not in (3, 4) or world.shape != (4, 4):
            told = f"{values.shape} with an affine {world.shape}"
            raise ValueError(f"expected an image (C, X, Y, Z) or (X, Y, Z) with an affine (4, 4), got {told}")
        return cls(np.swapaxes(values, -1, -3), world[:, REVERSED])

    def to_monai(self) -> Any:
        """A MONAI MetaTensor (C, X, Y, Z) with its affine in RAS+ mm, as LoadImage and EnsureChannelFirst give."""
        from monai.data import MetaTensor

        voxels, affine = np.ascontiguousarray(self._native().swapaxes(1, 3)), self.affine[:, REVERSED]
        meta = {
            "space": "RAS",
            "original_affine": affine.copy(),
            "spatial_shape": np.array(voxels.shape[1:]),
            "original_channel_dim": "no_channel" if self.channels == 1 else 0,  # else SaveImage takes it for 2D
        }
        return MetaTensor(voxels, affine=affine, meta=meta)

    def _native(self) -> NDArray[Any]:
        return self.array.astype(self.dtype.newbyteorder("="), copy=False)

    def _as_stored(self) -> NDArray[Any]:
        return self._native().astype(_STORED_AS.get(self.dtype.name, self.dtype.newbyteorder("=")), copy=False)
