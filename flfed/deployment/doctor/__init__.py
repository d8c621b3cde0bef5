"""Checks of `flfed doctor`: what keeps a site or the coordinator from working, each with its remedy.

`connection` looks along the way from a site to the coordinator, `machine` at files, disks and versions. `site` and
`coordinator` put both together with what the status commands find. Nothing here changes anything.
"""
