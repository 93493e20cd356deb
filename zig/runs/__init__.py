"""Training runs from a file: data, model, pruning method, schedule, checkpoints, and the compressed result.

config.py is what a file may say; data.py, images.py, squad.py and models.py make what it names; methods.py lists what
can prune; loop.py trains; checkpoint.py saves; result.py compresses and measures both models; train.py is the whole.
"""
