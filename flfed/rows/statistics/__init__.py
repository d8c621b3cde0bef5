"""Estimators whose sites turn rows into sums; each has its other half in `flfed/updates/strategies`."""
