"""`python -m tilesseg`."""

from __future__ import annotations

from tilesseg.cli.main import main

if __name__ == "__main__":
    main()
