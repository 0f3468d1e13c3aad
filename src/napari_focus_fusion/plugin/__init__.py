"""What napari shows: the only part of the package that imports napari or Qt."""

import os

# Threads of PyTorch that wait for each other leave the cores to napari and to other
# programs. Without effect where PyTorch is loaded already.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
