"""Checkpoints on disk, of any format.

``found.py`` finds one, ``reading.py`` opens it, ``load_plan.py`` decides what a load does with its tensors,
``saving.py`` writes one, ``casting.py`` changes dtypes on the way; ``model_files.py`` opens a whole model for the
commands. What is promised of them is importable from :mod:`xlmr_core.checkpoint`.
"""
