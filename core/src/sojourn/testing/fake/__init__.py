"""A driver without a provider: resources, files and processes are objects in memory.

`world` is what exists, `running` how its commands run, `programs` what they run, `driver` the hooks.
"""
