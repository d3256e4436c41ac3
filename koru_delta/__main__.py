"""`python -m koru_delta` is `kdelta`."""

from koru_delta.surfaces.cli import main

if __name__ == "__main__":
    main()
