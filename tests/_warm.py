"""Imported by the process that children are forked from: what a run loads only when it needs it."""

import aang_text.hooks  # noqa: F401
import datasets  # noqa: F401
import matplotlib.backends.backend_svg  # noqa: F401
import scipy.stats  # noqa: F401
import sklearn.feature_extraction.text
import sklearn.metrics  # noqa: F401
import transformers.models.bert.modeling_bert  # noqa: F401
