"""Imported by the process that children are forked from: what a run loads only when it is needed."""

import aang_text.hooks  # noqa: F401
import transformers.models.bert.modeling_bert  # noqa: F401

import aang_core.assembly
import aang_core.report_page  # noqa: F401
