"""The decoder and its parts: configuration, mixers, experts and router, head. Single device, no files, no data.

`config` and `count` import no torch; everything else does, so import the module you need.
"""
