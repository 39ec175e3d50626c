"""Experiments that the scripts run: what is trained, with which options, and what is decoded."""
