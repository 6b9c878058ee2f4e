"""Checks that find bad images before training; every file is decoded once, and its verdict is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from attrs import frozen
from torch import Tensor

from ftc.data.decode import fault
from ftc.data.readers import EncodedReader, OnError, Reader, sample_name, some
from ftc.data.store import chunks, digest, in_parallel, opened
from ftc.errors import InputError

_CHUNK = 32

Overlap = Literal["error", "allow"]


@frozen
class OutOfReach:
    """What stands for the stamp of a sample that cannot be looked at: its path or name, and the reason."""

    name: str
    reason: str


# What tells samples apart.
Stamp = str | OutOfReach


@frozen
class Verdict:
    """The result of decoding an image.

    Attributes:
        digest: digest of the encoded content; empty where the file could not be read.
        fault: reason why the image cannot be decoded; None if it can.
    """

    digest: str
    fault: str | None


@frozen(eq=False)
class Checked:
    """What a check found in images that may be used.

    Attributes:
        rows: the rows to keep of every reader, int64 (N,), in order.
        repeated: how many of them repeat the bytes of another one of the same reader, by reader, if any do.
        overlapping: how many training images are validation or test images, too, where that is allowed.
    """

    rows: Mapping[str, Tensor]
    repeated: Mapping[str, int]
    overlapping: int


def check_images(
    readers: Mapping[str, Reader],
    on_error: OnError,
    folder: Path,
    num_workers: int = 0,
    overlap: Overlap = "error",
) -> Checked:
    """Find images that cannot be decoded, and training images that are also validation or test images.

    Images are the same whose encoded content is, wherever they lie and whatever they are called. Verdicts are
    kept by stamp, so later checks look only at the files' sizes and times. What cannot be looked at is a bad
    image, too. Readers of decoded images are not checked.

    Args:
        readers: readers by name; ``train`` must share no sample with ``val`` or ``test``.
        on_error: ``error`` raises on bad images; ``skip`` leaves them out: unreadable ones of every reader,
            and shared ones of ``train``.
        folder: folder that keeps the verdicts.
        num_workers: processes to decode in; 0 for this one.
        overlap: ``allow`` lets training images be validation or test images as well, and counts them.

    Raises:
        InputError: bad images, unless they are skipped; the message names the first few.
    """
    encoded = {name: reader for name, reader in readers.items() if isinstance(reader, EncodedReader)}
    stamps = {name: [stamp_of(r, i) for i in range(len(r.targets))] for name, r in encoded.items()}
    samples = {stamp: (encoded[name], i) for name in encoded for i, stamp in enumerate(stamps[name])}
    found = verdicts(samples, folder, num_workers) if samples else {}
    elsewhere = {found[s].digest: (name, s) for name in ("test", "val") for s in stamps.get(name, ())}
    shared = {
        stamp: elsewhere[found[stamp].digest]
        for stamp in stamps.get("train", ())
        if found[stamp].fault is None and found[stamp].digest in elsewhere
    }
    if on_error == "error":
        _refuse(samples, found, {} if overlap == "allow" else shared)
    kept = {name: torch.ones(len(reader.targets), dtype=torch.bool) for name, reader in readers.items()}
    for name, of_reader in stamps.items():
        left_out = shared if name == "train" and overlap == "error" else {}
        kept[name][:] = torch.tensor([found[s].fault is None and s not in left_out for s in of_reader])
    rows = {name: mask.nonzero()[:, 0] for name, mask in kept.items()}
    repeated = {
        name: len(rows[name]) - len({found[of_reader[i]].digest for i in rows[name].tolist()})
        for name, of_reader in stamps.items()
    }
    return Checked(rows, {n: k for n, k in repeated.items() if k}, len(shared) if overlap == "allow" else 0)


def _refuse(
    samples: Mapping[Stamp, tuple[EncodedReader, int]],
    found: Mapping[Stamp, Verdict],
    shared: Mapping[Stamp, tuple[str, Stamp]],
) -> None:
    names = {stamp: sample_name(reader, i) for stamp, (reader, i) in samples.items()}
    faults = {stamp: found[stamp].fault or "" for stamp in samples if found[stamp].fault}
    if faults:
        reasons = {names[stamp]: reason for stamp, reason in faults.items()}
        raise InputError(
            f"{some(reasons)} ({len(faults)} of {len(samples)} images cannot be read); "
            "mend them, or set data.on_error=skip"
        )
    if shared:
        reasons = {
            names[stamp]: f"the same image as {names[other]} of data.readers.{split}"
            for stamp, (split, other) in shared.items()
        }
        raise InputError(
            f"{some(reasons)} ({len(shared)} images of data.readers.train are evaluated on); part them, "
            "set data.on_error=skip to not train on them, or data.overlap=allow"
        )


def stamp_of(reader: EncodedReader, row: int) -> Stamp:
    """The stamp of a sample, or what stands for it."""
    try:
        return reader.stamp(row)
    except OSError as error:
        return OutOfReach(str(error.filename or sample_name(reader, row)), _reason(error))


def verdicts(
    samples: Mapping[Stamp, tuple[EncodedReader, int]], folder: Path, num_workers: int = 0
) -> dict[Stamp, Verdict]:
    """The verdicts on samples, by stamp; samples without a verdict are decoded.

    Several processes may do so at the same time. An interruption loses no verdict that was found before.
    """
    known: dict[Stamp, Verdict] = {s: Verdict("", s.reason) for s in samples if isinstance(s, OutOfReach)}
    stamps = [stamp for stamp in samples if isinstance(stamp, str)]
    with opened(folder) as index:
        for stamp in stamps:
            row = index.execute(
                "SELECT digest, fault FROM verdict WHERE stamp = ?", (_key(stamp),)
            ).fetchone()
            if row is not None:
                known[stamp] = Verdict(*row)
        unknown = [(stamp, *samples[stamp]) for stamp in stamps if stamp not in known]
        for found in in_parallel("Checking images", _check, chunks(unknown, _CHUNK), num_workers):
            known.update(found)
            # A verdict without a digest is not kept: a file that cannot be read now may be readable later.
            lasting = [(_key(stamp), v.digest, v.fault) for stamp, v in found.items() if v.digest]
            with index:
                index.executemany("INSERT OR REPLACE INTO verdict VALUES (?, ?, ?)", lasting)
    return known


def _check(samples: Sequence[tuple[str, EncodedReader, int]]) -> dict[str, Verdict]:
    found = {}
    for stamp, reader, i in samples:
        try:
            content = reader.encoded(i)
        except OSError as error:
            found[stamp] = Verdict("", _reason(error))
        else:
            found[stamp] = Verdict(digest(content), fault(content))
    return found


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _key(stamp: str) -> str | bytes:
    """The stamp as the index has it: as text, but for paths that are not UTF-8."""
    try:
        stamp.encode()
    except UnicodeEncodeError:
        return stamp.encode("utf-8", "surrogatepass")
    return stamp
