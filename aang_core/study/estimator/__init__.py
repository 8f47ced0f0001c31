"""The scikit-learn estimator (`classifier`), and how it reads rows and labels (`rows`)."""

from aang_core.study.estimator.classifier import SAVED as SAVED
from aang_core.study.estimator.classifier import TextClassifier as TextClassifier
