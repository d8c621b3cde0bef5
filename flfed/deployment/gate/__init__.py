"""An institution's own side of a deployment: whose code runs there, who may start a study, what leaves."""
