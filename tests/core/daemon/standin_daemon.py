"""The real daemon with the stand-in worker."""

from __future__ import annotations

import sys
from pathlib import Path

from moat.daemon import compose
from moat.daemon.main import main

vars(compose)["COMMAND"] = (sys.executable, str(Path(__file__).with_name("standin_worker.py")))

sys.exit(main())
