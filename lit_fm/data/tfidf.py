"""Which texts are most alike by their words: the cosine of TF-IDF vectors (Salton and Buckley 1988)."""

import re
from collections import Counter, defaultdict

import numpy as np

_WORD = re.compile(r"\w+")


class TfIdf:
    """Texts by their words, upper case aside: counts times ln((1 + texts) / (1 + texts with it)) + 1, of length 1.

    These are scikit-learn's weights. A word of the template that all texts share counts least.
    """

    def __init__(self, texts: list[str]) -> None:
        counts = [Counter(_WORD.findall(text.lower())) for text in texts]
        self.size, with_it = len(texts), Counter(word for of in counts for word in of)
        self._idf = {word: float(np.log((1 + self.size) / (1 + n)) + 1) for word, n in with_it.items()}
        places: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for number, of in enumerate(counts):
            for word, weight in self._weights(of).items():
                places[word].append((number, weight))
        self._places = {
            word: (np.array([n for n, _ in at]), np.array([w for _, w in at])) for word, at in places.items()
        }

    def _weights(self, counts: Counter[str]) -> dict[str, float]:
        weights = {word: n * self._idf[word] for word, n in counts.items() if word in self._idf}
        length = sum(weight**2 for weight in weights.values()) ** 0.5
        return {word: weight / length for word, weight in weights.items()}

    def similarity(self, text: str) -> np.ndarray:
        """(texts,) of a text to each, in 0..1."""
        found = np.zeros(self.size)
        for word, weight in self._weights(Counter(_WORD.findall(text.lower()))).items():
            numbers, weights = self._places[word]
            found[numbers] += weight * weights
        return found
