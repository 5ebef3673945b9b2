"""Plugin projects to fill in, which `adapters scaffold` writes for a family of transformers.

`family` reads the classes and sizes of the family from transformers, `project` writes them into the templates.
"""
