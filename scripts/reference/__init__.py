"""Parts of scripts/gen-reference: what each page says, from the code."""
