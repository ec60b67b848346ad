"""PLCs: a tag port a protocol, and one handshake on top of them.

Why: deploy/decisions/0018.
"""
