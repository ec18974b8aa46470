"""Activation: an imperceptible change of an image that moves its feature onto the code of the index.

I = I_o + alpha * H_JND(I_o) * tanh(delta), delta by a few steps of Adam through the extractor (Fernandez, Douze, Jégou,
Furon, "Active Image Indexing", ICLR 2023, section 3).
"""
