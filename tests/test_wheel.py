"""The sdist makes the wheel, which carries its configurations: an installed ftc works from any folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_installed_wheel_finds_its_configs(tmp_path):
    sdist = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(sdist, cwd=ROOT, check=True, capture_output=True)
    (packed,) = tmp_path.glob("ftc-*.tar.gz")
    pip = [sys.executable, "-m", "pip"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(packed)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("ftc-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {f"ftc/conf/{p.relative_to(ROOT / 'conf')}" for p in (ROOT / "conf").rglob("*.yaml")}
    assert shipped <= names
    (scripts,) = (name for name in names if name.endswith("entry_points.txt"))
    assert "ftc = ftc.__main__:main" in zipfile.ZipFile(wheel).read(scripts).decode()

    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    install = [*pip, "install", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    env = {**os.environ, "PYTHONPATH": str(site)}

    def printed(*line: str) -> str:
        done = subprocess.run(line, cwd=elsewhere, env=env, text=True, capture_output=True, check=True)
        return done.stdout

    place = printed(sys.executable, "-c", "import ftc; print(ftc.__file__)")
    assert place.strip() == str(site / "ftc" / "__init__.py")
    ftc = str(site / "bin" / "ftc")
    assert "num_seen: 3" in printed(ftc, "train", "--cfg", "job", "partition.num_seen=3")
    assert "  train      source model" in printed(ftc)
