"""Checks of `flfed doctor`: what keeps a site or the coordinator from working, each with its remedy.

`connection` looks along the way from a site to the coordinator, `machine` at files, disks and units, `versions` at
flfed and Flower. `site` and `coordinator` put these together with what the status commands find. Nothing is changed.
"""
