"""Engines that run one app in three ways."""
