"""A folder that appears whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hbm_zoo.reporting.answers import VERBS

MARK = "report.html"
TABLES = ["comparison", "groups", "discoveries", *VERBS]
OWN = re.compile(rf"report\.(html|md)|({'|'.join(TABLES)})\.csv|\w+\.png|fits")


def check_target(folder: str | Path, overwrite: bool = False) -> Path:
    """Return where a report may be written.

    Raises
    ------
    FileExistsError
        If something is there that is not an empty folder; with `overwrite`, if it is not an earlier report.
    FileNotFoundError, PermissionError
        If its parent does not exist or may not be written to.
    """
    target = Path(folder).expanduser().resolve()
    if not target.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {target.parent} to write {target.name} in.")
    try:
        Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent)).rmdir()
    except OSError as error:
        raise PermissionError(f"The folder {target.parent} may not be written to.") from error
    if target.is_dir() and not any(target.iterdir()):
        return target
    if target.exists() and not overwrite:
        raise FileExistsError(
            f"{folder} exists: name another folder, or replace an earlier report (overwrite=True, --overwrite)."
        )
    if target.exists() and not (target / MARK).is_file():
        raise FileExistsError(f"{folder} holds something else than an earlier report: name another folder.")
    strange = sorted(path.name for path in target.iterdir() if not OWN.fullmatch(path.name)) if target.exists() else []
    if strange:
        raise FileExistsError(f"{folder} holds {strange[0]} beside an earlier report: move it, or name another folder.")
    return target


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A folder to write in that takes the place of `target` in one step, if all went well.

    It lies beside `target`, so that the step is a rename. An earlier report stays until
    then, and comes back should the step fail.
    """
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield draft
        umask = os.umask(0)
        os.umask(umask)
        draft.chmod(0o777 & ~umask)
        _put_in_place(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _put_in_place(draft: Path, target: Path) -> None:
    if not target.exists() or not any(target.iterdir()):
        os.replace(draft, target)
        return
    earlier = Path(tempfile.mkdtemp(prefix=f".{target.name}-earlier-", dir=target.parent))
    os.replace(target, earlier)
    try:
        os.replace(draft, target)
    except OSError:
        os.replace(earlier, target)
        raise
    shutil.rmtree(earlier)
