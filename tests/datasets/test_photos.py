"""The photographs: what they decode to, which are the same picture, and splits that share none."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hqnn_utils.datasets import catalogue
from hqnn_utils.datasets.catalogue import DataError, Dataset, entry
from hqnn_utils.datasets.photos import Photos, audit, clean, decode, pictures
from hqnn_utils.datasets.photos import published as photos

PHOTOGRAPHS = ("hymenoptera", "brain_tumor", "chessman")


def noise(seed: int, size: int = 12) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """Writes pictures, `file → picture`, as a data set of two classes in two splits, and returns its photographs."""
    monkeypatch.setenv("HQNN_DATA", str(tmp_path))

    def make(images: dict[str, Image.Image | bytes], splits: dict | None = None, test: int = 0) -> Photos:
        files = {}
        for file, image in images.items():
            path = tmp_path / "toy" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(image, bytes):
                path.write_bytes(image)
            else:
                image.save(path, {"png": "PNG", "bmp": "BMP", "gif": "GIF", "fcgi": "JPEG"}[path.suffix[1:]])
            files[file] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        splits = {"train": "Training", "test": "Testing"} if splits is None else splits
        about = dict.fromkeys(("title", "licence", "citation", "homepage"), "")
        counts = {"train": 0, "test": test}
        described = Dataset("toy", "photographs", classes=["a", "b"], counts=counts, files=files, splits=splits, **about)
        monkeypatch.setattr(catalogue, "entries", lambda: {"toy": described})
        return photos("toy")

    return make


PLACES = ("Training/a", "Training/b", "Testing/a", "Testing/b")
FOUR = {f"{place}/{k}.png": noise(k) for k, place in enumerate(PLACES)}


def test_photographs_have_the_class_and_split_of_their_folders(toy):
    found = toy(FOUR)
    assert [path.parent.name for path in found.paths] == [found.classes[label] for label in found.labels]
    assert {path.parents[1].name: split for path, split in zip(found.paths, found.splits, strict=True)} == {
        "Training": "train",
        "Testing": "test",
    }
    assert len(found) == 4 and found.of("test").tolist() == np.flatnonzero(found.splits == "test").tolist()


def test_only_what_the_manifest_lists_is_in_the_data_set(toy, tmp_path):
    toy(FOUR)
    (tmp_path / "toy" / "Training" / "a" / "placeholder.gif").write_bytes(b"GIF89a")
    assert len(photos("toy")) == 4


def test_a_file_is_what_it_decodes_to_whatever_its_name_and_mode(toy):
    palette = noise(9).convert("P")
    odd = {"Training/a/odd.fcgi": noise(8), "Training/a/palette.gif": palette, "Training/b/grey.png": noise(7).convert("L")}
    images = FOUR | odd
    decoded = [decode(path) for path in toy(images).paths]
    assert {image.mode for image in decoded} == {"RGB"}
    assert all(image.size == (12, 12) for image in decoded)


RAMP = np.tile(np.arange(256, dtype=np.uint8), (8, 1))
DEEP = RAMP.astype(np.uint16) * 257


def shades(path: Path) -> np.ndarray:
    decoded = decode(path)
    assert decoded.mode == "RGB"
    return np.asarray(decoded)


@pytest.mark.parametrize("suffix", ["png", "tif", "jp2", "pgm"])
def test_of_sixteen_bits_the_upper_eight_are_seen(tmp_path, suffix):
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(DEEP).save(path)
    assert np.array_equal(shades(path), np.dstack([RAMP] * 3))


def test_other_depths_have_their_own_black_and_white(tmp_path):
    Image.fromarray(DEEP.astype(">u2")).save(tmp_path / "big_endian.tif")
    Image.fromarray(DEEP).save(tmp_path / "packed.tif", compression="tiff_lzw")
    Image.fromarray(DEEP[:, ::-1]).save(tmp_path / "white_is_zero.tif", tiffinfo={262: 0})
    (tmp_path / "ten_bits.pgm").write_bytes(b"P5 256 8 1023\n" + (RAMP.astype(int) * 1023 // 255).astype(">u2").tobytes())
    for path in tmp_path.iterdir():
        assert np.abs(shades(path)[:, :, 0].astype(int) - RAMP).max() <= (path.suffix == ".pgm"), path.name


def test_different_pictures_of_sixteen_bits_are_told_apart(tmp_path):
    paths = [tmp_path / f"{k}.png" for k in range(3)]
    for path, levels in zip(paths, (DEEP, DEEP[:, ::-1], DEEP[:, ::-1] // 2 + 256), strict=True):
        Image.fromarray(levels).save(path)
    Image.fromarray(RAMP).save(tmp_path / "eight.png")
    assert len(set(pictures([*paths, tmp_path / "eight.png"]).tolist())) == 3  # the ramp in 8 bits looks like that in 16


UNDEFINED = {
    "integers.tif": Image.fromarray(DEEP.astype(np.int32)),
    "floats.tif": Image.fromarray(RAMP.astype(np.float32) / 255),
    "floats.pfm": Image.fromarray(RAMP.astype(np.float32)),
    "deep_and_keyed.png": Image.fromarray(DEEP),
}


@pytest.mark.parametrize("name", UNDEFINED)
def test_levels_that_a_file_leaves_undefined_are_refused_by_name(tmp_path, name):
    options = {"transparency": 257} if "keyed" in name else {}
    UNDEFINED[name].save(tmp_path / name, **options)
    with pytest.raises(DataError, match=rf"{name} does not decode as an image .*save it with 8"):
        decode(tmp_path / name)


FILMS = {"8 bits.png": RAMP, "8 bits.tif": RAMP, "8 bits.jpg": RAMP, "16 bits.png": DEEP, "16 bits.tif": DEEP}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", FILMS)
def test_a_photograph_is_turned_as_its_camera_was_held(tmp_path, orientation, name):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(FILMS[name]).save(tmp_path / name, exif=exif)
    upright = {  # where the row 0 and the column 0 of what is stored belong: the table of the EXIF standard
        1: RAMP,
        2: RAMP[:, ::-1],
        3: RAMP[::-1, ::-1],
        4: RAMP[::-1],
        5: RAMP.T,
        6: RAMP.T[:, ::-1],
        7: RAMP.T[::-1, ::-1],
        8: RAMP.T[::-1],
    }[orientation]
    found = shades(tmp_path / name)[:, :, 0]
    assert found.shape == upright.shape and np.abs(found.astype(int) - upright).max() <= 2 * name.endswith("jpg")


def test_what_is_transparent_shows_white(tmp_path):
    glass = np.dstack([RAMP, RAMP, RAMP, np.full_like(RAMP, 255)])
    glass[:, 100] = 0  # black, and not to be seen
    glass[:, 50, 3] = 51  # a fifth opaque
    for mode in ("RGBA", "LA"):
        Image.fromarray(glass).convert(mode).save(tmp_path / f"{mode}.png")
    Image.fromarray(RAMP).save(tmp_path / "key.png", transparency=100)
    Image.fromarray(RAMP).convert("P").save(tmp_path / "palette.gif", transparency=100)
    for path in tmp_path.iterdir():
        seen = shades(path)
        assert (seen[:, 100] == 255).all() and (seen[:, 200] == 200).all(), path.name
        if path.stem in ("RGBA", "LA"):
            assert (seen[:, 50] == 255 - (255 - 50) // 5).all()


def test_of_several_pictures_the_first_is_seen(tmp_path):
    first, second = Image.fromarray(RAMP), Image.fromarray(RAMP[:, ::-1].copy())
    for suffix in ("gif", "tif", "png"):
        first.save(tmp_path / f"two.{suffix}", save_all=True, append_images=[second])
        assert np.array_equal(shades(tmp_path / f"two.{suffix}")[:, :, 0], RAMP)


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, SyntaxError, IndexError, Image.DecompressionBombError, OSError])
def test_whatever_a_decoder_raises_the_file_is_named(tmp_path, monkeypatch, error):
    def crash(file):
        raise error("it broke")

    noise(1).save(tmp_path / "odd.png")
    monkeypatch.setattr(Image, "open", crash)
    with pytest.raises(DataError, match=rf"odd\.png does not decode as an image \({error.__name__}: it broke\)"):
        decode(tmp_path / "odd.png")


def test_an_image_that_would_fill_the_memory_is_named(tmp_path):
    Image.new("1", (20000, 10000)).save(tmp_path / "huge.png")
    with pytest.raises(DataError, match=r"huge\.png does not decode as an image \(DecompressionBombError"):
        decode(tmp_path / "huge.png")


def test_a_file_that_changed_after_it_was_checked_is_refused(toy):
    found = toy(FOUR)
    found.paths[0].write_bytes(found.paths[1].read_bytes())
    with pytest.raises(DataError, match=r"2\.png is not the published file"):
        decode(found.paths[0], found.hashes[0])
    assert decode(found.paths[1], found.hashes[1]).size == (12, 12)


def test_files_of_the_same_pixels_are_one_picture_however_they_are_coded(toy):
    found = toy(FOUR | {"Testing/a/again.bmp": noise(0), "Training/b/turned.png": noise(0).rotate(90)})
    same = dict(zip((str(Path(*path.parts[-3:])) for path in found.paths), pictures(found.paths).tolist(), strict=True))
    assert same["Testing/a/again.bmp"] == same["Training/a/0.png"]
    assert len(set(same.values())) == 5


def test_an_image_of_the_same_bytes_but_another_shape_is_another_picture(toy):
    grey = noise(1, 12).tobytes()
    wide, high = (Image.frombytes("RGB", size, grey) for size in ((24, 6), (6, 24)))
    same = pictures(toy(FOUR | {"Training/a/wide.png": wide, "Training/a/high.png": high}).paths)
    assert len(set(same.tolist())) == 6


def test_the_audit_counts_twins_across_splits_and_classes(toy):
    images = FOUR | {"Testing/a/leak.bmp": noise(0), "Training/b/mislabelled.bmp": noise(0), "Training/b/copy.bmp": noise(1)}
    table = audit(toy(images))
    assert table.loc[("test", "a")].tolist() == [2, 2, 1, 1]
    assert table.loc[("train", "a")].tolist() == [1, 1, 1, 1]
    assert table.loc[("train", "b")].tolist() == [3, 2, 1, 1]
    assert table.loc[("test", "b")].tolist() == [1, 1, 0, 0]


def test_a_set_without_a_split_gets_a_fixed_one_with_the_class_shares(toy):
    images = {f"{c}/{k}{c}.png": noise(100 * k + ord(c)) for c, n in (("a", 30), ("b", 10)) for k in range(n)}
    found, again = (toy(images, splits={}, test=8) for _ in range(2))
    assert np.bincount(found.labels[found.of("test")]).tolist() == [6, 2]
    assert np.array_equal(found.splits, again.splits)


grouped = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 25)), min_size=30, max_size=60)


@given(rows=grouped, seed=st.integers(0, 100))
def test_a_clean_split_keeps_every_picture_on_one_side(rows, seed):
    rows += [(k % 2, 30 + k) for k in range(24)]  # single pictures, so that each class can be on both sides
    labels, groups = np.array(rows).T
    splits = np.where(np.arange(len(rows)) % 5 == 0, "test", "train")
    found = Photos("toy", ["a", "b"], [Path(str(i)) for i in range(len(rows))], labels, splits, "")
    cleaned = clean(found, groups, seed)
    sides = {group: set(cleaned.splits[groups == group]) for group in set(groups)}
    assert all(len(side) == 1 for side in sides.values())
    assert 0 < len(cleaned.of("test")) <= len(found.of("test")) + 1
    assert audit(cleaned, groups)["in other split"].sum() == 0
    assert np.array_equal(cleaned.splits, clean(found, groups, seed).splits)


def test_a_file_that_does_not_decode_is_named(toy):
    found = toy(FOUR | {"Training/a/broken.png": b"\x89PNG\r\n\x1a\n and no more"})
    with pytest.raises(DataError, match=r"broken\.png does not decode as an image .* replace it, or take it out"):
        pictures(found.paths)


@pytest.mark.parametrize(("split", "folder"), [("train", "Training"), ("test", "Testing")])
@pytest.mark.parametrize("label", "ab")
def test_a_class_that_a_split_lacks_is_named(toy, split, folder, label):
    with pytest.raises(DataError, match=f"no {split} images of class '{label}'"):
        toy({file: image for file, image in FOUR.items() if not file.startswith(f"{folder}/{label}")})


def test_a_set_of_digits_is_no_set_of_photographs():
    with pytest.raises(
        DataError, match=r"'digits' is a set of digits: `hqnn_utils\.datasets\.digits\.load\('digits'\)` gives its images"
    ):
        photos("digits")


@pytest.fixture(params=PHOTOGRAPHS)
def real(request):
    """The real photographs of each data set; skips where they are not at hand."""
    if set(entry(request.param).verify().values()) != {"ok"}:
        pytest.skip(f"needs the photographs in {entry(request.param).folder}: try `hqnn data fetch {request.param}`")
    return photos(request.param)


def test_which_pictures_are_the_same_is_found_once(toy, tmp_path, monkeypatch):
    monkeypatch.setattr("hqnn_utils.files.cache", lambda: tmp_path / "cache")
    found = toy(FOUR)
    first = clean(found, seed=3)
    monkeypatch.setattr("hqnn_utils.datasets.photos.decode", None)  # a second look would fail
    assert (clean(found, seed=3).splits == first.splits).all()
    with pytest.raises(TypeError):
        clean(replace(found, hashes=[]), seed=3)


def test_the_real_sets_have_the_counts_of_the_catalogue_and_all_decode(real):
    counts = entry(real.name).counts
    assert {split: len(real.of(split)) for split in counts} == counts
    leaked = audit(real)["in other split"].loc["test"].sum()
    assert leaked == {"hymenoptera": 0, "chessman": 0, "brain_tumor": 211}[real.name]


def test_a_clean_split_of_the_brain_tumours_has_no_leak_and_as_many_test_images():
    if set(entry("brain_tumor").verify().values()) != {"ok"}:
        pytest.skip("needs the photographs: try `hqnn data fetch brain_tumor`")
    published = photos("brain_tumor")
    same = pictures(published.paths)
    cleaned = clean(published, same)
    assert audit(cleaned, same)["in other split"].sum() == 0
    assert len(cleaned.of("test")) == len(published.of("test"))
