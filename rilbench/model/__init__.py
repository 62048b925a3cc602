"""Models of transformers as the whole project uses them: inputs, decoding and sampling."""
