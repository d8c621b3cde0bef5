"""Export of a trained model.

It has the model's folder, its signature, and predictions by it.
"""
