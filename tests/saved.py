"""Tiny models in directories, and a store of vectors that were extracted on one of them."""

from pathlib import Path

from steerlab import Lab, LanguageModel, Store
from tests.tiny import tiny_lm

LOVE = [("I love you so", "I hate you so"), ("what a joy", "what a pain")]
ANGER = [("I am so angry", "I am so calm"), ("go away now", "stay here now")]


def save_model(directory: Path, architecture: str = "llama", seed: int = 0, **changes) -> Path:
    """A directory that `LanguageModel.load` and `--model` take; vectors call it by its name."""
    lm = tiny_lm(architecture, seed, **changes)
    lm.model.save_pretrained(directory)
    lm.tokenizer.save_pretrained(directory)
    return directory


def fill_store(directory: Path, model: Path) -> Path:
    """love and anger at layers 1 and 2, warm = love - 0.5*anger, front (actadd) at layer 1."""
    lab = Lab(Store(directory), LanguageModel.load(str(model)))
    love = lab.extract("love", LOVE, layers=[1, 2], tags=["feeling"], note="the first")
    anger = lab.extract("anger", ANGER, layers=[1, 2], tags=["feeling"])
    lab.store.save("warm", love - 0.5 * anger)
    lab.extract("front", [("Love", "Hate")], layers=1, method="actadd")
    return directory
