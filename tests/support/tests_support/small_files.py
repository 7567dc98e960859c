"""Trials' folders with a few words in each file."""


def write_files(root, name, **files):
    """Write such files of a trial, `.txt` each, and return its folder."""
    folder = root.trial_folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    for stem, content in files.items():
        (folder / f"{stem}.txt").write_text(content)
    return folder


def read_files(folder):
    """Return the content of each file of a folder."""
    return {file.name: file.read_text() for file in folder.iterdir()}
