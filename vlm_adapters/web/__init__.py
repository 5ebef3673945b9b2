"""A page in the browser: `adapters web`. Ground a sentence, and see where its words look. Needs the extra `web`."""
