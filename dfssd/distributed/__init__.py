"""One run on several processes: torchrun starts the command line as often as there are devices, on one node or several.

The first process leads: it runs all stages as a run of one process does. The others wait for what it hands out
(:mod:`dfssd.distributed.crew`): a training, in which all of them take part, or their share of the images to label.
Outside of these, no library sees that there are other processes (:mod:`dfssd.distributed.place`).
"""
