"""What a gate knows: approvals, receipts, requests kept, terms of the coordinator."""
