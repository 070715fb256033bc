"""How fast the PyTorch backend is, beside its peers: one file a question, started as ``python -m benchmarks.encoder``.

``python -m benchmarks`` asks all of them. docs/benchmarks.md says how to repeat the figures and what each one means.
"""
