"""A worker process of Beam's: Beam's own program, after what all of them import.

They would import it later, with the first function of ours, and take twice as long.
"""

from __future__ import annotations

import sys

from ... import importing

with importing():
    import tfx.components  # noqa: F401
    from apache_beam.runners.worker import sdk_worker_main

if __name__ == "__main__":
    sdk_worker_main.main(sys.argv)
