"""All that stands on transformers: prompts, capture of attention and hidden states, loading, processors."""
