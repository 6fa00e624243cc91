"""Matches between two views, the relative pose that they give, and how wrong it is."""
