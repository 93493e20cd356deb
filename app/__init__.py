"""The app: a model's graph, its groups, and what pruning them does, in a browser.

The sources lie in `app/` and are installed as `zig.app`. Everything but drawing is plain Python without streamlit:

    workspace   which files the app may touch
    opened      one opened model and everything that is computed of it, once
    facts/      what the pages say in words and tables
    scene/      what the canvas shows: the tree of modules, boxes, layout, colours
    work, jobs  long work in a process of its own, with progress, and to be cancelled

Streamlit is imported by `main`, `session`, `canvas/` and `views/` alone.
"""
