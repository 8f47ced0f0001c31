"""aang beside scikit-learn, cell by cell: few labels, more texts without labels, cross-validation, the report.

Open it as a notebook (each ``# %%`` begins a cell), or run it: ``python docs/examples/estimator.py [MODEL [STEPS]]``.
"""

# %% Support tickets: thirty-two with a label, more without.
import sys
import tempfile
from pathlib import Path

import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline

from aang_core import TextClassifier

MODEL = sys.argv[1] if len(sys.argv) > 1 else ""  # empty: the usual encoder
STEPS = int(sys.argv[2]) if len(sys.argv) > 2 else None

PARTS = ["screen", "keyboard", "hinge", "battery", "cable", "speaker", "lid", "fan"]
BILLS = ["invoice", "refund", "receipt", "payment", "discount", "order", "voucher", "account"]
tickets = pd.DataFrame(
    [(f"The {part} of my laptop is broken, it fails {when}.", "hardware")
     for part in PARTS for when in ("at night", "every day")]
    + [(f"I do not understand the {bill}, it came {when}.", "billing")
       for bill in BILLS for when in ("too late", "twice")],
    columns=["message", "kind"],
)  # fmt: skip
unlabelled = pd.Series([f"Ticket {n}: the {w} again." for n, w in enumerate(PARTS + BILLS)])

# %% A baseline first: whoever has few labels should know what words alone can do.
folds = StratifiedKFold(2, shuffle=True, random_state=0)
words = make_pipeline(TfidfVectorizer(), LogisticRegression())
baseline = cross_val_score(words, tickets["message"], tickets["kind"], cv=folds)
print(f"words alone: {baseline.mean():.3f}")

# %% The same with an encoder and auxiliary objectives. Every fold trains anew; dev is cut from its training part.
classifier = TextClassifier(MODEL, max_steps=STEPS)
scores = cross_val_score(classifier, tickets["message"], tickets["kind"], cv=folds)
print(f"aang: {scores.mean():.3f}, folds {scores.round(3).tolist()}")

# %% On all labels; texts without labels are data for the auxiliary objectives.
classifier.fit(tickets["message"], tickets["kind"], unlabelled=unlabelled)
probabilities = pd.DataFrame(
    classifier.predict_proba(unlabelled.head(3)), columns=classifier.classes_
)
print(probabilities.round(3))

# %% What the run says of itself: the score on dev, and which objectives it learned to weigh.
report = classifier.report_
print("dev", report["summary"]["dev"]["mean"], "by", report["metric"])
weights = pd.Series(report["weights"]["objectives"]).sort_values(ascending=False)
print(weights.head(5))

# %% Keep it. `model/` is a plain transformers model; `load` gives the classifier back.
place = Path(tempfile.mkdtemp()) / "tickets"
classifier.save(place)
again = TextClassifier.load(place)
assert (again.predict(unlabelled) == classifier.predict(unlabelled)).all()
print("saved", sorted(path.name for path in place.iterdir()))
