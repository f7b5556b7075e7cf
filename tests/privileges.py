"""What begins the command of a process that may do no more than permissions say, also when root starts it."""

import os

__all__ = ["WITHOUT_PRIVILEGES"]

# Root reads and writes what it may not, unless it gives up that it may.
_LESS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]

WITHOUT_PRIVILEGES = _LESS if os.geteuid() == 0 else []
