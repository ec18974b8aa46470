"""The producer without any service."""

from __future__ import annotations

from pathlib import Path

import pytest

from producer.images import read_image
from producer.search import find_images
from tasks.errors import AiiError, EmptyImage, NotFound, TooLarge, TruncatedImage, error_of


def test_a_folder_gives_its_images_and_all_below(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("b.JPG", "a.png", "sub/c.webp", "notes.txt"):
        (tmp_path / name).touch()
    assert [str(f.relative) for f in find_images([str(tmp_path)]).found] == ["a.png", "b.JPG", "sub/c.webp"]


def test_a_dash_is_the_image_on_standard_input() -> None:
    (found,) = find_images(["-"], b"bytes").found
    assert found.source == b"bytes"


@pytest.mark.parametrize(
    ("data", "kind"),
    [(b"", EmptyImage), (b"\xff\xd8\xff" + b"0" * 100, TooLarge)],
)
def test_what_cannot_be_an_image_is_refused_before_the_upload(
    data: bytes, kind: type[AiiError], tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(data)
    for image in (data, tmp_path / "file"):
        with pytest.raises(kind):
            read_image(image, max_bytes=50)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"nothing\.jpg"):
        read_image(tmp_path / "nothing.jpg", 50)


def test_an_error_code_becomes_the_exception_of_that_name() -> None:
    assert type(error_of("truncated", "half a file")) is TruncatedImage
    assert str(error_of("of_the_future", "new")) == "of_the_future: new"
