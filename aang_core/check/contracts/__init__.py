"""What every primitive, ours or a stranger's, must keep. Begin in `aang_core.testing`, the public door.

A file a stage: `source`, `transform`, `representation` and `output`. They check on a real but tiny encoder
(`tiny_encoder`) over tiny texts (`tiny_data`); shapes and types are those of
`aang_core.batch.checks`, which every run checks.
"""
