"""Which forms of the PROXY header, and of X-Forwarded-For, a server accepts.

`forms` and `openings` are what is sent, `judge` and `choose` are tables of what answers mean:
bytes in, values out. `exchange` opens the connections, `run` is the order of the questions.
"""
