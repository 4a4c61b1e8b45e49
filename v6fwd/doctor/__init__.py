"""What on this host keeps IPv6 clients from being served, or from being seen, and the mend.

`gather` reads the host, each source within a deadline, into `facts`: plain values. The checks
(`host`, `ports`, `docker`, `serving`, `containers`) are pure functions from facts to findings,
listed in `examine`. Nothing is changed.
"""
