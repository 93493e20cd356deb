"""A plan becomes a smaller file: axes are cut, constants folded, files written whole."""
