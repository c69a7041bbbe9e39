"""Mixtures: sources, nested selection, packing, and the card that says what went in."""
