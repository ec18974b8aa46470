"""From distances to verdicts: the score of a match, its calibration on unrelated images, and what an answer says."""
