"""Deployments at real institutions.

A deployment has a SuperLink, nodes, gates, and the commands of their operators.

`engine` runs a study over a deployment, `bundle` has the two files that Flower asks of a run. The rest is one folder a
subject: `coordinator/` and `processes/` serve, `gate/` decides, `site_state/` is the state of a gate. `operator/` has
the actions of a person at a site, `site_app/` shows them, `flower/` has nearly all that speaks to Flower.
`doctor/` examines both sides, `rehearsal/` starts all of it on one machine.
"""
