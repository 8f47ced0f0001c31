"""The contract of every primitive, from any package. Begin in `aang_core.testing`, the public entry.

One file for each stage: `source`, `transform`, `representation` and `output`. They check on a real but tiny encoder
(`tiny_encoder`) over tiny texts (`tiny_data`); shapes and types are those of
`aang_core.batch.checks`, which every run checks.
"""
