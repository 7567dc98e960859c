"""What is raised at bytes that are no file of torch.save's, or one that holds something else."""

import pickle
import struct
import zipfile

UNREADABLE = (
    OSError,
    RuntimeError,
    EOFError,
    MemoryError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    struct.error,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)
"""By zipfile, by torch, and by nets built of what was read."""
