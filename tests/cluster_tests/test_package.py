"""What goes along with a job: exactly the files that Ray's own packaging would take."""

import zipfile
from pathlib import Path

import pytest

from cluster.package import DEFAULT_EXCLUDES, NEVER_SENT, RECORDINGS, pack
from trainer.recordings import ENDINGS

TREE = {
    "a.py": "",
    "notes.txt": "",
    "keep.txt": "",
    "take.WAV": "",
    "music/one.flac": "",
    "music/cover.txt": "",
    ".git/config": "",
    ".gitignore": "*.txt\n!keep.txt\nbuild/\n/top.log\nsp\\ ace\n**/deep/**/x.bin\n# no\n\\#hash\n",
    ".rayignore": "big\n*.tmp\n!needed.tmp\n",
    "build/made.py": "",
    "top.log": "",
    "sub/top.log": "",
    "sub/build/made.py": "",
    "sub/.gitignore": "*.py\n!here.py\n/only.md\n",
    "sub/here.py": "",
    "sub/gone.py": "",
    "sub/only.md": "",
    "sub/in/only.md": "",
    "sub/in/keep.txt": "",
    "sub/in/.rayignore": "*",
    "other/in/here.md": "",
    "big/file": "",
    "sp ace": "",
    "#hash": "",
    "deep/a/b/x.bin": "",
    "a/deep/x.bin": "",
    "needed.tmp": "",
    ".venv/bin/python": "",
    "own/venv/x.py": "",
    "own/__pycache__/x.pyc": "",
    "été/ö.md": "",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with ignore rules of every kind, links and empty folders."""
    folder = tmp_path / "tree"
    for name, content in TREE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    (folder / "empty" / "within").mkdir(parents=True)
    (folder / "hollow").mkdir()
    (folder / "hollow" / "x.tmp").touch()
    (folder / "linked").symlink_to(folder / "other")
    (folder / "broken").symlink_to(folder / "nowhere")
    return folder


def packed_by_ray(folder: Path, archive: Path, *, include_gitignore: bool = True) -> list[str]:
    """Return the names in Ray's own archive of a folder."""
    from ray._private.runtime_env.packaging import create_package

    excludes = [*DEFAULT_EXCLUDES.split(","), *NEVER_SENT]
    create_package(str(folder), archive, include_gitignore=include_gitignore, excludes=excludes)
    return zipfile.ZipFile(archive).namelist()


@pytest.mark.parametrize("include_gitignore", [True, False])
def test_the_same_files_go_along_as_with_ray(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, include_gitignore: bool
) -> None:
    monkeypatch.setenv("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", str(int(not include_gitignore)))
    theirs = packed_by_ray(tree, tmp_path / "ray.zip", include_gitignore=include_gitignore)
    with (tmp_path / "ours.zip").open("wb") as file:
        pack(tree).write_to(file)
    assert zipfile.ZipFile(tmp_path / "ours.zip").namelist() == theirs
    assert {"keep.txt", "sub/here.py", "été/ö.md", "empty/within/", "linked/in/here.md"} <= {
        *theirs
    }
    assert ("notes.txt" in theirs) is not include_gitignore


def test_the_same_files_of_this_project_go_along_as_with_ray(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    theirs = packed_by_ray(root, tmp_path / "ray.zip")
    assert [str(path) for path in pack(root).files] == [name.rstrip("/") for name in theirs]


def test_excludes_that_replace_rays_count_too(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES", "other, linked")
    files = {str(path) for path in pack(tree).files}
    assert "own/venv/x.py" in files and "other/in/here.md" not in files
    assert ".git/config" not in files  # whatever the variable says


def test_no_recording_and_no_history_goes_along(tree: Path) -> None:
    files = {str(path) for path in pack(tree).files}
    assert not [name for name in files if name.lower().endswith(ENDINGS) or ".git/" in name]
    assert RECORDINGS == ENDINGS


def test_what_is_largest_is_named_with_its_largest_file(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for name, size in (("old/a.bin", 3), ("old/b.bin", 1), ("c.bin", 2)):
        (tmp_path / name).write_bytes(bytes(size * 2**20))
    package = pack(tmp_path)
    assert package.size_bytes == 6 * 2**20
    assert package.name_largest() == ("old/ 4.0 MiB (in it old/a.bin 3.0 MiB), c.bin 2.0 MiB")
