"""The side-by-side proof: v6fwd and what a user would pick instead, in the same run.

cli.py, __main__.py  `python -m bench [run|report]`
run.py               the plan: scenarios x rounds x peers, interleaved
trial.py             one measurement: its processes, its commands, its end
ground.py            where it happens: network namespaces, or loopback
processes.py         CPU and memory of a process tree; ending it
peers/               one class a file: how a relay is configured, started, known to be ready
scenarios/           one class a file: the load, the unit of work, the figures, the checks
targets.py           the servers behind the relay
helpers/             small programs that run inside a namespace
result.py            what a run writes down: JSON and back
stats.py             medians, and ratios pair by pair; pure
compare.py           v6fwd against docker-proxy, and against the better of HAProxy and nginx; pure
table.py plots.py readme.py   the result for eyes: terminal, PNG, README
"""
