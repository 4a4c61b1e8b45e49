"""The second engine: plain TCP flows over io_uring, everything else on epoll as ever.

`_ring` is native, and optional. `choose` says whether it can be used here.
"""
