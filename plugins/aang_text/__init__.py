"""Built-in text primitives and the Hugging Face encoders. They use the public hooks, like any plugin."""

from aang_core import _moved

MOVED = {
    "attention": "encoder.attention",
    "aux_tasks": "data.sources",
    "backbone": "encoder.backbone",
    "checkpoint": "encoder.checkpoint",
    "classifier": "encoder.heads",
    "corpora": "data.corpora",
    "documents": "data.documents",
    "exported": "encoder.exported",
    "offers": "aang_core.batch.parts",
    "outputs.heads": "aang_core.batch.parts",
    "selection": "aang_core.batch.positions",
    "generated": "data.generated",
    "output_records": "records",
    "outputs.statistics": "outputs.tokens",
    "papers": "records",
    "probes": "encoder.probes",
    "sample": "data.sample",
    "scratch": "encoder.checkpoint",
    "sources": "data.sources",
    "stored": "data.stored",
    "tokens": "encoder.tokens",
    "tuning": "encoder.tuning",
    "vocabulary": "encoder.heads",
}
"""Old name under ``aang_text`` → new name, under it or in the core; the old names go with 0.2."""

_moved.install(__name__, MOVED)
