"""Run store, reports and pages of recorded runs; nothing here sees rows or arrays."""
