"""Sizes and states of folders that may be huge, missing, unreadable or no folders at all."""

from __future__ import annotations

import os

import pytest

from ftc.machine.folders import folder, parts


@pytest.fixture
def cache(tmp_path):
    """A folder with 10 bytes in itself and 200 below, and a link to 4,000 outside."""
    (tmp_path / "big").write_bytes(bytes(4000))
    place = tmp_path / "cache"
    (place / "images" / "deep").mkdir(parents=True)
    (place / "own").write_bytes(bytes(10))
    (place / "images" / "deep" / "one").write_bytes(bytes(200))
    (place / "images" / "link").symlink_to(tmp_path / "big")
    (place / "images" / "lost").symlink_to(tmp_path / "nowhere")
    (place / "round").symlink_to(place)
    return place


def test_sizes_are_of_the_files_themselves(cache):
    found = folder("cache", cache)
    links = sum(path.lstat().st_size for path in cache.rglob("*") if path.is_symlink())
    assert (found.state, found.size, found.whole) == ("there", 210 + links, True)
    assert found.writable and found.free > 0
    assert [(part.name, part.path) for part in parts(found)] == [
        ("cache/images", str(cache / "images")),
        ("cache/round", str(cache / "round")),
    ]


def test_adding_up_ends_in_time(cache):
    found = folder("cache", cache, patience=-1)
    assert (found.size, found.whole) == (0, False)


def test_what_cannot_be_read_is_said(cache, monkeypatch):
    scan, size = os.scandir, folder("cache", cache).size

    def scandir(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = folder("cache", cache)
    assert (found.size, found.whole) == (size - 200, False)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    found = folder("cache", cache)
    assert (found.state, found.size, found.writable, list(parts(found))) == ("cannot be read", 0, False, [])


def test_what_is_no_folder_is_said(cache, tmp_path):
    states = {
        tmp_path / "later" / "on": ("not there yet", True),
        tmp_path / "big": ("no folder", False),
        cache / "images" / "lost": ("a link to nothing", False),
        tmp_path / "big" / "below": ("not there yet", True),
    }
    for path, (state, writable) in states.items():
        found = folder("x", path)
        assert (found.state, found.writable, list(parts(found))) == (state, writable, []), path
        assert found.free > 0
    assert not (tmp_path / "later").exists()
