"""These tests hold on a machine without torch. `make no-torch` runs them in an environment with the serving extra.

Where torch is installed (a developer's environment) they are not collected, unless FUSELINE_NO_TORCH says that this
environment is meant to be the bare one: then torch's presence is a failure and nothing is left out in silence.
"""

from __future__ import annotations

import importlib.util
import os

_bare = os.environ.get("FUSELINE_NO_TORCH") == "1" or importlib.util.find_spec("torch") is None
collect_ignore_glob = [] if _bare else ["test_*.py"]
