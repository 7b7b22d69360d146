"""Calibrate scikit-learn's classifiers: boosted trees, a forest, a support vector machine and a text pipeline.

Run: python examples/sklearn_calibration.py
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import log_loss
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from lsmooth.integrations.sklearn import CalibratedLogitClassifier


def digits(train: int = 250, test: int = 250):
    """Images of three digits with noise, so that there is something to be unsure of."""
    x, y = load_digits(n_class=3, return_X_y=True)
    x = x[:, 16:40] + np.random.default_rng(0).normal(0.0, 12.0, (len(x), 24))
    return x[:train], y[:train], x[train : train + test], y[train : train + test]


def sentences(rows: int = 400):
    """Words drawn by the sentence's mood, most of which say little."""
    rng = np.random.default_rng(0)
    words = np.array(["good", "bad", "fine", "poor", "film", "plot", "actor", "scene"])
    mood = rng.integers(0, 2, rows)
    chances = np.array([[1, 2, 1, 2, 4, 4, 4, 4], [2, 1, 2, 1, 4, 4, 4, 4]]) / 22
    text = [" ".join(rng.choice(words, 12, p=chances[k])) for k in mood]
    return text[: rows // 2], mood[: rows // 2], text[rows // 2 :], mood[rows // 2 :]


CLASSIFIERS = {
    "boosted trees": (HistGradientBoostingClassifier(max_iter=25, max_leaf_nodes=8), digits, "temperature"),
    "forest": (RandomForestClassifier(50, random_state=0), digits, "temperature"),
    "support vectors": (SVC(), digits, "temperature"),
    "text": (make_pipeline(TfidfVectorizer(ngram_range=(1, 3), norm=None), MultinomialNB()), sentences, "temperature"),
}


def main() -> dict[str, tuple[float, float]]:
    """The log loss of each classifier, as it is and calibrated."""
    losses = {}
    for name, (classifier, data, calibrator) in CLASSIFIERS.items():
        x, y, new_x, new_y = data()
        plain = classifier.fit(x, y)
        if hasattr(plain, "predict_proba"):
            before = plain.predict_proba(new_x)
        else:  # the softmax of its scores, for want of anything better
            scores = plain.decision_function(new_x)
            before = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        calibrated = CalibratedLogitClassifier(classifier, calibrator=calibrator, cv=3, ensemble=False).fit(x, y)
        after = calibrated.predict_proba(new_x)
        losses[name] = log_loss(new_y, before), log_loss(new_y, after)
        print(f"{name:16} log loss {losses[name][0]:.3f}, calibrated {losses[name][1]:.3f}")
    return losses


if __name__ == "__main__":
    main()
