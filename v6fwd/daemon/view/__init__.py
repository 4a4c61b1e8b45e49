"""What people look at: the status page, and the figures that `v6fwd top` shows too.

figures      errors and rates of a forward, from one status and the one before
rows         forwards and held ports as rows, and the sums of all
clients      flows summed by client and by network; pseudo finds their pseudo IPv4 addresses
history      samples of the last ten minutes; recent has the last lines of the log
feed         gathers all this once a second, and sends it to those who watch
pages        the paths of the page; guard says which requests may have them;
             serving makes the server
"""
