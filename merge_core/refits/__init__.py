"""A merge without gates: channels chosen by least squares, readers refitted, outputs distilled.

What a gate stage costs goes into more teachers and a longer fine-tuning. `netweld merge NAME
--preset ours` is this; the strategy `ours` of a table is the same for many seeds at once.
"""
