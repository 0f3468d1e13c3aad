"""``python -m napari_focus_fusion``."""

from __future__ import annotations

import sys

from .cli import main

sys.exit(main())
