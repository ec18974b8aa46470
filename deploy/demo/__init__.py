"""``aii demo``: the main job on real photographs, through the running stack."""
