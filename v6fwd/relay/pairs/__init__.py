"""Plain TCP flows on the epoll, moved by a native module while nothing unusual happens.

`_epoll` is optional: without it, and for whatever it gives back, `tcp/side` moves the bytes.
"""
