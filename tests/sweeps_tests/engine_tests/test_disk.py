import pytest

from sweeps.engine.disk import CHECKPOINTS, Disk
from sweeps.engine.outcomes import TrialRecord
from sweeps.engine.root import Root
from trainer.checkpoint import BEST

FILE_BYTES = 1000
BEST_TRIAL, GOOD, STOPPED, BAD, OPEN = (f"{number:016x}" for number in range(5))
STANDING = [
    TrialRecord(fingerprint=name, outcome=outcome)
    for name, outcome in (
        (BEST_TRIAL, "finished"),
        (GOOD, "finished"),
        (STOPPED, "stopped"),
        (OPEN, "interrupted"),
        (BAD, "diverged"),
    )
]


@pytest.fixture
def root(tmp_path):
    root = Root.open("root", relative_to=tmp_path, create=True)
    for record in STANDING:
        write_trial(root, record.fingerprint)
    return root


def write_trial(root, name):
    folder = root.trials / name
    folder.mkdir(parents=True)
    for file in (*CHECKPOINTS, BEST, "metrics.jsonl"):
        (folder / file).write_bytes(b"x" * FILE_BYTES)


def open_disk(root, *, keep_files=None, trial_bytes=0, others=()):
    keep_bytes = None if keep_files is None else keep_files * FILE_BYTES
    return Disk(
        root,
        keep_bytes=keep_bytes,
        trial_bytes=trial_bytes,
        standings=lambda: [STANDING, *others],
    )


def kept(root, name):
    return {path.name for path in (root.trials / name).iterdir()} - {"metrics.jsonl"}


ALL, NET, NONE = {*CHECKPOINTS, BEST}, {BEST}, set()


@pytest.mark.parametrize(
    ("keep_files", "expected"),
    [
        (None, [ALL, ALL, ALL, ALL, ALL]),
        (15, [ALL, ALL, ALL, ALL, ALL]),
        (13, [ALL, ALL, NET, ALL, NET]),  # to a tenth below: the worst first
        (8, [NET, NET, NET, ALL, NET]),
        (6, [NET, NET, NET, ALL, NONE]),
        (5, [NET, NET, NONE, ALL, NONE]),
        (4, [NET, NONE, NONE, ALL, NONE]),
        (0, [NET, NONE, NONE, ALL, NONE]),
    ],
)
def test_the_worst_trials_checkpoints_go_first_then_their_weights(root, keep_files, expected):
    open_disk(root, keep_files=keep_files).end(BAD)
    assert [kept(root, record.fingerprint) for record in STANDING] == expected
    assert all((root.trials / r.fingerprint / "metrics.jsonl").is_file() for r in STANDING)


def test_what_cannot_be_collected_is_told_once(root, caplog):
    disk = open_disk(root, keep_files=3)
    disk.end(BAD)
    disk.end(STOPPED)
    assert [record.getMessage() for record in caplog.records] == [
        "keep-gb=3e-06: the best nets and the trials that may go on take 4e-06 GB"
    ]


def test_another_sweeps_best_and_open_trials_are_kept(root):
    other = [
        TrialRecord(fingerprint=STOPPED, outcome="finished"),
        TrialRecord(fingerprint=BAD, outcome="interrupted"),
    ]
    open_disk(root, keep_files=0, others=[other]).end(GOOD)
    assert [kept(root, name) for name in (STOPPED, BAD, GOOD)] == [NET, ALL, NONE]


def test_a_trial_that_trains_now_is_left_alone(root):
    disk = open_disk(root, keep_files=0)
    disk.begin(STOPPED)  # again, under this sweep
    with root.hold(BAD, timeout_s=0):  # under another one
        disk.end(GOOD)
    assert [kept(root, name) for name in (STOPPED, BAD, GOOD)] == [ALL, ALL, NONE]


def test_a_folder_of_no_sweep_is_left_alone(root):
    stranger = "f" * 16
    write_trial(root, stranger)
    open_disk(root, keep_files=0).end(GOOD)
    assert kept(root, stranger) == ALL


@pytest.fixture
def disk_of_115_mb(mount_disk):
    return mount_disk(megabytes=110)  # of 2 ** 20 bytes


def test_a_full_disk_lets_no_trial_begin_until_there_is_room(disk_of_115_mb, caplog):
    root = Root.open(str(disk_of_115_mb.folder), relative_to=disk_of_115_mb.folder, create=True)
    disk = open_disk(root, trial_bytes=1_000_000)
    assert disk.has_room()
    disk_of_115_mb.fill()
    assert [disk.has_room(), disk.has_room()] == [False, False]
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        f"disk: {root.path} lacks 0.101 GB for another trial: new trials wait until there is room"
    ]
    disk_of_115_mb.free()
    assert disk.has_room()


def test_room_is_kept_for_what_running_trials_will_write(disk_of_115_mb):
    root = Root.open(str(disk_of_115_mb.folder), relative_to=disk_of_115_mb.folder, create=True)
    disk = open_disk(root, trial_bytes=6_000_000)
    disk.begin(BAD)
    assert disk.has_room()  # two of 6 MB, 100 in reserve
    disk.begin(GOOD)
    assert not disk.has_room()
    disk.end(GOOD)
    assert disk.has_room()


def test_checkpoints_of_ended_trials_make_room(disk_of_115_mb):
    root = Root.open(str(disk_of_115_mb.folder), relative_to=disk_of_115_mb.folder, create=True)
    for record in STANDING:
        folder = root.trials / record.fingerprint
        folder.mkdir(parents=True)
        for name in (*CHECKPOINTS, BEST):
            (folder / name).write_bytes(b"x" * 500_000)
    disk = open_disk(root, trial_bytes=9_000_000)  # 7.5 MB of 115.3 taken, 100 in reserve
    assert disk.has_room()
    assert [kept(root, record.fingerprint) for record in STANDING] == [ALL, ALL, NET, ALL, NET]
