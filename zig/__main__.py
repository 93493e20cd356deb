"""`python -m zig` is the `zig` command."""

from zig.cli import main

if __name__ == "__main__":
    main()
