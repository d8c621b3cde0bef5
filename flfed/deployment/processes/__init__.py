"""Processes of a site.

They are node, gate, connector, and the supervisor that keeps them running.

`serve` is `flfed site serve`; `node` talks to the coordinator and sees no rows, `executor` sees rows and has no
network. `relay` and `connector` are the sockets between them.
"""
