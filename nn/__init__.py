"""Layers, their functional forms and their initialisation, imported as tensorgrad.nn."""

if __name__ != "tensorgrad.nn":
    raise ImportError(
        "the folder nn/ is a part of tensorgrad: write `from tensorgrad import nn` or "
        "`from tensorgrad.nn import Linear`, not `import nn`"
    )
