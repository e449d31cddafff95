"""``python -m frcnn``: the same as the command ``frcnn``."""

from frcnn.cli import main

if __name__ == "__main__":
    main()
