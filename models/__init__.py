"""The ladder, each model in one file, from bigram counts to GPT-2: tensorgrad.models."""

if __name__ != "tensorgrad.models":
    raise ImportError(
        "the folder models/ is a part of tensorgrad: write `from tensorgrad import models`, "
        "not `import models`"
    )
