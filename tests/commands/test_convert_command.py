import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from vol3d.commands.main import main
from vol3d.files.masks import Instance, hubmap_text
from vol3d.files.whole import load_volume, save_volume
from vol3d.volume.volume import Volume

Capture = pytest.CaptureFixture[str]
SENNET = """id,rle
k_1_0004,1 2 12 1
k_1_0005,1 0
k_1_0006,5 3
k_2_0000,3 1
"""


def converted(capsys: Capture, *words: object, code: int = 0) -> str:
    """What it prints: JSON, or a sentence."""
    capsys.readouterr()
    assert main(["convert", *map(str, words), "--json"]) == code
    out, err = capsys.readouterr()
    return out if code == 0 else err


def whole(path: Path) -> NDArray[np.generic]:
    voxels: NDArray[np.generic] = load_volume(path).array[0]
    return voxels


def test_sennets_table_there_and_back(tmp_path: Path, capsys: Capture) -> None:
    table, masks, back = tmp_path / "t.csv", tmp_path / "masks", tmp_path / "back.csv"
    table.write_text(SENNET)
    told = json.loads(converted(capsys, "sennet-rle", table, masks, "--shape", "3,4", "--spacing", 0.05, 0.05, 0.05))
    assert [(m["name"], m["shape"], m["voxels"]) for m in told["masks"]] == [
        ("k_1", [3, 3, 4], 6),
        ("k_2", [1, 3, 4], 1),
    ]
    assert sorted(p.name for p in (masks / "k_1").iterdir()) == ["0004.tif", "0005.tif", "0006.tif", "spacing.json"]
    assert tifffile.imread(masks / "k_1" / "0004.tif").tolist() == [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    assert load_volume(masks / "k_1").spacing == (0.05, 0.05, 0.05)
    converted(capsys, "sennet-rle", masks, back)
    assert back.read_text() == SENNET
    assert "is there already: name another file, or say --overwrite" in converted(
        capsys, "sennet-rle", masks, back, code=2
    )
    again = ("sennet-rle", table, masks, "--shape", "3,4")
    assert "k_1 is there already" in converted(capsys, *again, code=2)
    assert main(["convert", *map(str, again), "--overwrite"]) == 0
    assert "says no spacing; 1 mm is written" in capsys.readouterr().err
    assert load_volume(masks / "k_1").spacing == (1, 1, 1)


def test_a_mask_takes_after_its_image(tmp_path: Path, capsys: Capture) -> None:
    table, masks, data = tmp_path / "t.csv", tmp_path / "masks", tmp_path / "data"
    table.write_text(SENNET)
    for name, planes in (("k_1", (4, 5, 6)), ("k_2", (0,))):
        (data / name / "images").mkdir(parents=True)
        for number in planes:
            tifffile.imwrite(data / name / "images" / f"{number:04d}.tif", np.zeros((3, 4), np.uint16))
        (data / name / "spacing.json").write_text('{"z": 0.063, "y": 0.05, "x": 0.04}')
    converted(capsys, "sennet-rle", table, masks, "--like", data, "--format", "nii.gz")
    volume = load_volume(masks / "k_1.nii.gz")
    assert np.flatnonzero(volume.array).tolist() == [0, 1, 11, 28, 29, 30]
    assert volume.spacing == pytest.approx((0.063, 0.05, 0.04))
    (data / "k_1" / "images" / "0006.tif").unlink()
    assert "no image for 0006" in converted(capsys, "sennet-rle", table, masks, "--like", data, "--overwrite", code=3)
    (data / "k_1" / "images" / "0006.tif").write_bytes((data / "k_1" / "images" / "0005.tif").read_bytes())
    (data / "k_1" / "images" / "0007.tif").write_bytes((data / "k_1" / "images" / "0005.tif").read_bytes())
    assert "no row for 0007" in converted(capsys, "sennet-rle", table, masks, "--like", data, "--overwrite", code=3)


def test_a_data_set_gives_its_labels_and_an_image_is_no_mask(tmp_path: Path, capsys: Capture) -> None:
    image = np.full((2, 3, 4), 300, np.uint16)
    save_volume(Volume.from_array(image), tmp_path / "data" / "k_1" / "images")
    save_volume(Volume.from_array((image * 0).astype(np.uint8)), tmp_path / "data" / "k_1" / "labels")
    converted(capsys, "sennet-rle", tmp_path / "data", tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == "id,rle\nk_1_0000,1 0\nk_1_0001,1 0\n"
    images = tmp_path / "data" / "k_1" / "images"
    said = converted(capsys, "sennet-rle", images, tmp_path / "i.csv", code=3)
    assert "images: expected values from 0 to 255, got 300; give a mask, not an image" in said
    assert not (tmp_path / "i.csv").exists()


def test_siims_table_there_and_back(tmp_path: Path, capsys: Capture) -> None:
    table, masks, back = tmp_path / "t.csv", tmp_path / "masks", tmp_path / "back.csv"
    table.write_text("ImageId, EncodedPixels\n1.2.3, 5 2 1 1\n1.2.4, -1\n1.2.3, 0 1\n")
    told = json.loads(converted(capsys, "siim-rle", table, masks, "--shape", "4,3"))
    assert [m["voxels"] for m in told["masks"]] == [4, 0]
    assert whole(masks / "1.2.3.png")[0].tolist() == [[1, 0, 1], [0, 1, 0], [0, 1, 0], [0, 0, 0]]
    converted(capsys, "siim-rle", masks, back)
    assert back.read_text() == "ImageId,EncodedPixels\n1.2.3,0 1 4 2 1 1\n1.2.4,-1\n"


def test_hubmaps_instances_there_and_back(tmp_path: Path, capsys: Capture) -> None:
    table, masks, back = tmp_path / "t.csv", tmp_path / "masks", tmp_path / "back.csv"
    one, two = np.zeros((2, 5, 4), np.bool_)
    one[:3], two[4, 1:] = True, True
    text = hubmap_text([Instance(0.25, one), Instance(0.75, two)])
    table.write_text(f"id,height,width,prediction_string\na,5,4,{text}\nb,5,4,\n")
    converted(capsys, "hubmap-rle", table, masks)
    assert whole(masks / "a.png")[0].tolist() == [[1] * 4] * 3 + [[0] * 4] + [[0, 2, 2, 2]]
    converted(capsys, "hubmap-rle", masks, back)
    assert back.read_text() == table.read_text()
    (masks / "confidences.csv").write_text("id,instance,confidence\na,1,high\n")
    assert "confidences.csv: line 2" in converted(capsys, "hubmap-rle", masks, back, "--overwrite", code=3)
    (masks / "confidences.csv").unlink()
    converted(capsys, "hubmap-rle", masks, back, "--overwrite")
    assert back.read_text().count("0 1.0 ") == 2
    # Where instances overlap the surer one is seen, whichever comes first.
    for first, second, seen in ((0.5, 0.75, [2]), (0.75, 0.5, [1]), (0.5, 0.5, [1])):
        text = hubmap_text([Instance(first, one), Instance(second, one)])
        table.write_text(f"id,height,width,prediction_string\na,5,4,{text}\n")
        converted(capsys, "hubmap-rle", table, masks, "--overwrite")
        assert np.unique(whole(masks / "a.png")[0, :3]).tolist() == seen


def test_hubmaps_polygons_there_and_back(tmp_path: Path, capsys: Capture) -> None:
    lines, masks, back = tmp_path / "p.jsonl", tmp_path / "masks", tmp_path / "back.jsonl"
    ring = [[1, 1], [5, 1], [5, 3], [1, 3]]
    lines.write_text(json.dumps({"id": "a", "annotations": [{"type": "glomerulus", "coordinates": [ring]}]}) + "\n")
    converted(capsys, "hubmap-polygons", lines, masks)
    labels = whole(masks / "a.png")
    assert labels.shape == (1, 512, 512) and (labels[0, 1:4, 1:6] == 2).all() and labels.sum() == 30
    converted(capsys, "hubmap-polygons", masks, back)
    converted(capsys, "hubmap-polygons", back, tmp_path / "again")
    np.testing.assert_array_equal(whole(tmp_path / "again" / "a.png"), labels)
    save_volume(Volume.from_array(np.full((1, 4, 5), 9, np.uint8)), masks / "b.png")
    assert "b.png: expected the values 0 and 1 blood_vessel" in converted(
        capsys, "hubmap-polygons", masks, back, "--overwrite", code=3
    )
    assert "glomerulus" in back.read_text()  # the old one stays


def test_what_cannot_be_converted_is_refused(tmp_path: Path, capsys: Capture) -> None:
    table = tmp_path / "t.csv"
    table.write_text("ImageId,EncodedPixels\n../a,-1\n")
    masks = tmp_path / "masks"
    for words, code, says in (
        (("siim-rle", tmp_path / "none", masks), 2, "does not exist; expected a .csv file"),
        (("siim-rle", tmp_path, masks), 2, "expected a .csv file as source or target"),
        (("siim-rle", table, masks), 3, "'../a' is no name for a file"),
        (("siim-rle", table, masks, "--shape", "3"), 2, "expected --shape Y,X"),
        (("siim-rle", tmp_path, table, "--shape", "3,4"), 2, "are for masks out of text"),
        (("siim-rle", table, masks, "--spacing", "0", "1", "1"), 2, "three positive millimetres"),
        (("voc", table, masks), 2, "invalid choice"),
    ):
        assert says in converted(capsys, *words, code=code)
        assert not masks.exists()
    save_volume(Volume.from_array(np.zeros((3, 4, 5), np.uint8)), masks / "b.nii.gz")
    assert "a picture of one slice" in converted(capsys, "siim-rle", masks, tmp_path / "o.csv", code=3)
    table.write_text("ImageId,EncodedPixels\n")
    assert "holds no mask" in converted(capsys, "siim-rle", table, tmp_path / "other", code=3)
    table.write_text("ImageId,EncodedPixels\na,-1\nb,1 2 3\n")
    assert "t.csv: line 3" in converted(capsys, "siim-rle", table, tmp_path / "other", code=3)
    assert [p.name for p in (tmp_path / "other").iterdir()] == ["a.png"]  # whole or not at all
