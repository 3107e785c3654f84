"""GPT-2's weights, in and out: Hugging Face's folders, llm.c's model files, nanoGPT's layout."""

from tensorgrad.models.weights.hugging_face import load as load_hugging_face
from tensorgrad.models.weights.hugging_face import save as save_hugging_face
from tensorgrad.models.weights.llmc import load as load_llmc
from tensorgrad.models.weights.llmc import save as save_llmc
from tensorgrad.models.weights.nanogpt import load as load_nanogpt
from tensorgrad.models.weights.nanogpt import save as save_nanogpt

__all__ = [
    "load_hugging_face",
    "load_llmc",
    "load_nanogpt",
    "save_hugging_face",
    "save_llmc",
    "save_nanogpt",
]
