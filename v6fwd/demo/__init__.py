"""The main job, shown with nothing but this package.

`show` runs it, `target` is the small server whose log tells the truth, `client` sends the
request, `lab` is the network of namespaces that it happens in where that is allowed.
"""
