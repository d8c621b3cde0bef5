"""The coordinator's side of a deployment: who is invited, who is admitted, and the server between them."""
