"""What examples of properties may take."""

from __future__ import annotations

from hypothesis import settings

# On a machine that is busy an example takes as long as it takes.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
