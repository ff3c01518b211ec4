"""``dfssd label``: pseudo-labels of more images than fit into a run, by networks that are trained, as Parquet files.

The images are listed once (:mod:`~dfssd.labeling.listing`) and cut into shards. A first pass over a sample fixes the
threshold of each class (:mod:`~dfssd.labeling.first_pass`); with these, each shard is labeled on its own
(:mod:`~dfssd.labeling.worker`), in this process or by actors of Ray (:mod:`~dfssd.labeling.engines`), and written
whole (:mod:`~dfssd.labeling.shards`). So the labels do not depend on who makes which shard, and what is there need not
be made again (:mod:`~dfssd.labeling.run`).
"""
