"""How well activation works: edits, retrieval figures, reports."""
