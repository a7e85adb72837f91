"""`python -m tilesseg`."""

from tilesseg.cli import main

if __name__ == "__main__":
    main()
