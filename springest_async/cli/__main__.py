"""``python -m springest_async.cli`` is the same as ``springest``."""

import sys

from springest_async.cli import main

sys.exit(main())
