"""Training and scoring at a site.

Pure functions of model, arrays, encoded rows, plan and seed.
"""
