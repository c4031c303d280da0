"""Documents as tokens: a vocabulary learned from them, shards on the disk, the order of reading."""
