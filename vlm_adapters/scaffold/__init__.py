"""A plugin to fill in: `adapters scaffold` writes one for a family of transformers.

`family` reads from transformers what it knows of the family, `project` writes it into the files of `templates`.
"""
