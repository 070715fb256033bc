"""Training without a framework: what decides a result, which rows a step sees, and what a run leaves behind.

``recipe.py`` says what is done, ``tasks.py`` how an example of a task becomes arrays, ``examples.py`` reads files,
``batches.py`` gives the batch of a step, which depends on the seed and the step alone. A backend has the loop.
"""

from __future__ import annotations
