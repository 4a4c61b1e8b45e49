"""Decides which client-ip mode a published port has."""
