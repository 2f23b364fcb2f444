"""Generators: facts about Kafka, kept as data in `schema/`, become tables and classes in `src`.

`python -m codegen` rewrites every generated file; `python -m codegen --check` says whether they
are up to date. Nothing in `src` imports this package.
"""
