"""`rec results`: pages that put runs side by side, made from the files of the runs alone."""
