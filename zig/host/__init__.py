"""The machine that zig runs on: files written whole, locks, signals, processes apart, packages that may be missing."""
