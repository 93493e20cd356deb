"""What the canvas shows: nodes worth drawing, the tree of modules, visible boxes, their layout and colours."""
