"""What a person does at a site: join, look, approve, replay, restart a ledger."""
