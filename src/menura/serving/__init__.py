"""Policies over a network, in openpi's websocket protocol."""
